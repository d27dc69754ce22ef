"""Keys in files: those whose signatures are believed, and the one that signs."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slim_actors.errors import ConfigurationError
from slim_actors.files import read_text, to_path
from slim_actors.throttle import Throttle

if TYPE_CHECKING:
    import jwt

__all__ = ["Trust", "as_jwk", "is_private_key", "signing_algorithm"]

_logger = logging.getLogger("slim_actors.identity")
_time_to_log = Throttle()

_PEM = "-----BEGIN "
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_AS_BEFORE = "Those that were trusted before still are."
_ODD = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a file raises in which something stands at a wrong place."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384"}


def is_private_key(file: str | Path) -> bool:
    """Tell whether a file holds a private key rather than a token.

    Raises:
        ConfigurationError: It cannot be read.
    """
    return "PRIVATE KEY-----" in read_text(to_path(file), "token or key")


def signing_algorithm(file: Path) -> str:
    """Tell by which algorithm the private key in a file signs.

    Raises:
        ConfigurationError: The file cannot be read, or holds no private key in PEM form, or one of a kind
            that tokens are not signed with.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = read_text(file, "private key")
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{file} holds no unencrypted private key in PEM form; slim-actors certs makes one."
        ) from None
    return _algorithm(key.public_key(), file)


class Trust:
    """The keys in a file, read again when it changes; one that makes no sense, or is gone, changes nothing.

    One that is whole and has no keys counts: from then on nobody is believed.

    Args:
        file: A public key or certificates in PEM, a JWKS (RFC 7517), or a bundle: a JSON object with a JWKS,
            plain or in base64, for each trust domain.

    Raises:
        ConfigurationError: The file cannot be read, or holds no keys, when it is first looked at.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: tuple[int, int] | None = None
        self._jwks: list[dict[str, Any]] = []
        self._keys: list[jwt.PyJWK] = []
        self._is_gone = False
        self._load()

    @property
    def jwks(self) -> str:
        """The keys as a JWKS."""
        self._load()
        return json.dumps({"keys": self._jwks})

    def keys(self, header: dict[str, Any]) -> list[jwt.PyJWK]:
        """Give the keys that may have signed a token with this header: by key id, else by algorithm."""
        self._load()
        fitting = [key for key in self._keys if key.algorithm_name == header.get("alg")]
        named = [key for key in fitting if key.key_id is not None and key.key_id == header.get("kid")]
        return named or fitting

    def _load(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        try:
            jwks, keys, odd = self._parsed()
        except ConfigurationError as error:
            if self._stamp is None:
                raise
            # It is looked at again until it is whole.
            if _time_to_log(self):
                _logger.warning("%s %s", error, _AS_BEFORE)
            return
        if not keys and self._stamp is None:
            raise ConfigurationError(odd or f"{self.file} holds no keys to trust.")
        if not keys:
            _logger.warning("%s holds no keys to trust any more: nobody is believed.", self.file)
        elif odd:
            _logger.warning("%s It is left out.", odd)
        self._jwks, self._keys, self._stamp = jwks, keys, stamp

    def _stamp_now(self) -> tuple[int, int] | None:
        """Give what tells one content of the file from the next; the last one, if it is gone."""
        try:
            state = self.file.stat()
        except OSError as error:
            wrong = ConfigurationError(f"The trusted keys {self.file} cannot be read: {error.strerror}.")
            if self._stamp is None:
                raise wrong from None
            # Being replaced just now, perhaps.
            if not self._is_gone:
                self._is_gone = True
                _logger.warning("%s %s", wrong, _AS_BEFORE)
            return self._stamp
        self._is_gone = False
        return state.st_mtime_ns, state.st_size

    def _parsed(self) -> tuple[list[dict[str, Any]], list[jwt.PyJWK], str]:
        """Give the keys that can be used, in both forms, and what is wrong with another one, if any is."""
        import jwt

        text = read_text(self.file, "file of trusted keys")
        found = _from_pem(text, self.file) if _PEM in text else _from_json(text, self.file)
        jwks, keys, odd = [], [], ""
        for one in found:
            try:
                keys.append(jwt.PyJWK(one))
            except (jwt.PyJWTError, *_ODD) as error:
                # A new kind of key is no reason to believe one that is not in the file any more (RFC 7517,
                # section 5).
                odd = f"{self.file} has a key that cannot be used: {error}."
            else:
                jwks.append(one)
        return jwks, keys, odd


def _from_pem(text: str, file: Path) -> list[dict[str, Any]]:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        if _CERTIFICATE in text:
            found: list[Any] = [
                certificate.public_key() for certificate in x509.load_pem_x509_certificates(text.encode())
            ]
        else:
            found = [load_pem_public_key(text.encode())]
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{file} holds no public key: give the public half of the key that signs."
        ) from None
    return [as_jwk(key, file) for key in found]


def _from_json(text: str, file: Path) -> list[dict[str, Any]]:
    wrong = ConfigurationError(
        f"{file} holds no keys to trust: give a public key in PEM form, a JWKS, or a bundle of them."
    )
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise wrong
        if "keys" in found:
            return _keys_of(found)
        sets = [json.loads(base64.b64decode(one)) if isinstance(one, str) else one for one in found.values()]
        return [key for one in sets for key in _keys_of(one)]
    except _ODD:
        raise wrong from None


def _keys_of(jwks: dict[str, Any]) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = []
    if not isinstance(jwks["keys"], list):
        raise TypeError
    for key in jwks["keys"]:
        # A key that only decrypts, or certifies, vouches for no token; what is no key does even less.
        if not isinstance(key, dict) or key.get("use") not in (None, "sig", "jwt-svid"):
            continue
        if key.get("kty") != "oct":
            keys.append(dict(key))
    return keys


def as_jwk(key: Any, file: Path) -> dict[str, Any]:
    """Give a public key as a JWK (RFC 7517).

    Raises:
        ConfigurationError: Tokens are not signed with keys of its kind; the text names the file.
    """
    import jwt

    name = _algorithm(key, file)
    algorithm: Any = jwt.get_algorithm_by_name(name)
    return {**algorithm.to_jwk(key, as_dict=True), "alg": name, "use": "sig"}


def _algorithm(key: Any, file: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise ConfigurationError(
        f"{file} holds a key that tokens are not signed with here: use ES256, ES384, RS256 or EdDSA."
    )
