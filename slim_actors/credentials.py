"""What an identity comes down to: a token to show, and a check of the tokens that peers show.

SLIM checks less than one would think (see ``docs/security.md``), so slim-actors checks each peer's token
itself, on both sides of a session.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from slim_actors.errors import ConfigurationError
from slim_actors.files import read_text
from slim_actors.identity import Identity, Jwt, SharedSecret, StaticJwt, trusted
from slim_actors.trust import Trust, signing_algorithm

if TYPE_CHECKING:
    import jwt

__all__ = ["KINDS", "Claims", "Credentials", "Refused", "credentials_of"]

_SECRET_TOKEN_PARTS = 5
_SECRET_TOKEN_VALID = 3600
_CLOCK_SKEW = 5.0
_NONCE_BYTES = 12
_TOKEN_PARTS = 3
KINDS = ("a shared secret", "an issued token", "a key that signs tokens")
_ENDING = re.compile(r"#[0-9a-f]{16}\Z")
_INTRODUCES = "slim-actors-introduction"
_OWN = "it shows the token of this side"


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_INTRODUCES_IN_BASE64 = _to_base64(json.dumps({_INTRODUCES: True}).encode())


class Refused(Exception):
    """A token is not believed; the text says why, beginning with what it is about: "its token …"."""


class Claims(Struct, frozen=True):
    """Whom a token names, as far as it is believed."""

    subject: str
    issuer: str = ""
    id: str = ""
    """What SLIM calls the subject: the same, but that it may have an ending for each instance."""
    expires: float = float("inf")
    """When it ends, in seconds since the epoch."""
    is_for_introductions: bool = False
    """Whether the token says no more than who somebody is: strangers have seen it."""


class Credentials(Protocol):
    """A token to show, and the check of those that are shown."""

    @property
    def kind(self) -> str:
        """What kind of identity it is, in words."""

    @property
    def id(self) -> str:
        """Whom the tokens of this instance name, with an ending of its own; empty if others make them.

        A peer that shows such a token has it from this side, to which SLIM lets it show it in silence.
        """

    def token(self) -> str:
        """Give a token for introductions that is valid now.

        Raises:
            ConfigurationError: A file that it is made from cannot be used.
        """

    def verify(self, token: str) -> Claims:
        """Give whom a token names.

        Raises:
            Refused: It is not believed.
            ConfigurationError: The file with the trusted keys cannot be used.
        """


def credentials_of(identity: Identity, name: str) -> Credentials | None:
    """Give the credentials of an agent; None where only SLIM itself can make and check tokens.

    Raises:
        ConfigurationError: A file that they need cannot be used.
    """
    if isinstance(identity, SharedSecret):
        return _SecretCredentials(identity.secret, name)
    if isinstance(identity, Jwt):
        return _SigningCredentials(identity, name)
    if isinstance(identity, StaticJwt):
        return _TokenCredentials(identity)
    return None


class _SecretCredentials:
    """Tokens as SLIM makes them from a shared secret: ``id:time:nonce:claims:HMAC-SHA256``, in base64url."""

    kind = "a shared secret"

    def __init__(self, secret: str, name: str) -> None:
        # Made once: to set up the key takes longer than to go over a token.
        self._mac_of_nothing = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self.id = _of_instance(name)

    def token(self) -> str:
        nonce = _to_base64(secrets.token_bytes(_NONCE_BYTES))
        # SLIM puts such a word behind each id as well.
        text = f"{self.id}_{secrets.token_hex(4)}:{int(time.time())}:{nonce}:{_INTRODUCES_IN_BASE64}"
        return f"{text}:{self._mac(text)}"

    def verify(self, token: str) -> Claims:
        parts = token.split(":")
        if len(parts) != _SECRET_TOKEN_PARTS or not parts[1].isdecimal():
            raise Refused("it has another kind of identity: here a shared secret is used")
        who, made, _, claims, mac = parts
        if not hmac.compare_digest(mac.encode(), self._mac(token[: -len(mac) - 1]).encode()):
            raise Refused("it has another shared secret")
        age = time.time() - int(made)
        if not -_CLOCK_SKEW <= age <= _SECRET_TOKEN_VALID:
            raise Refused(f"its clock is {abs(age):.0f} s {'behind' if age > 0 else 'ahead'}")
        if who.rpartition("_")[0] == self.id:
            raise Refused(_OWN)
        return _believed(who, claims)

    def _mac(self, text: str) -> str:
        mac = self._mac_of_nothing.copy()
        mac.update(text.encode())
        return _to_base64(mac.digest())


@lru_cache(maxsize=256)
def _believed(who: str, claims: str) -> Claims:
    """Give whom a token of SLIM's names: each payload brings one, and all of a peer's say the same."""
    subject = _ENDING.sub("", who.rpartition("_")[0])
    return Claims(subject, id=who, is_for_introductions=claims == _INTRODUCES_IN_BASE64)


class _TokenCredentials:
    """A token from a file, and the check of JSON Web Tokens."""

    kind = "an issued token"
    id = ""

    def __init__(self, identity: Jwt | StaticJwt) -> None:
        self._identity = identity
        self._trust = Trust(trusted(identity))
        if isinstance(identity, StaticJwt):
            # Now, and not when the first peer asks.
            self.token()

    def token(self) -> str:
        assert isinstance(self._identity, StaticJwt), "a signing identity makes its tokens"
        file = self._identity.token
        token = read_text(file, "token").strip()
        if token.count(".") != _TOKEN_PARTS - 1:
            raise ConfigurationError(
                f"{file} holds no token: a JSON Web Token has three parts, with dots between."
            )
        return token

    def verify(self, token: str) -> Claims:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Refused("it has another kind of identity: here JSON Web Tokens are used") from None
        refused = Refused("its token is signed with a key that is not trusted here")
        for key in self._trust.keys(header):
            try:
                claims = self._decode(token, key)
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidTokenError as error:
                raise Refused(self._why(token, error)) from None
            subject = claims["sub"]
            if self.id and subject == self.id:
                raise Refused(_OWN)
            return Claims(
                self._whom(subject), claims.get("iss", ""), subject, claims["exp"], _INTRODUCES in claims
            )
        raise refused

    def _whom(self, subject: str) -> str:
        return subject

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        import jwt

        return jwt.decode(
            token,
            key,
            # Never what the token says: an attacker writes that (RFC 8725, section 3.1).
            algorithms=[key.algorithm_name],
            audience=list(self._identity.audience),
            issuer=self._identity.issuer or None,
            leeway=_CLOCK_SKEW,
            options={"require": ["exp", "sub", "aud"]},
        )

    def _why(self, token: str, error: jwt.InvalidTokenError) -> str:
        import jwt

        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        match error:
            case jwt.ExpiredSignatureError():
                return f"its token expired {time.time() - claims['exp']:.0f} s ago"
            case jwt.InvalidAudienceError():
                return (
                    f"its token is for {_words(claims.get('aud'))}, not for {_words(self._identity.audience)}"
                )
            case jwt.InvalidIssuerError():
                return f"its token is from {_words(claims.get('iss'))}, not from {self._identity.issuer}"
            case jwt.MissingRequiredClaimError():
                return f"its token has no {error.claim}"
            case jwt.ImmatureSignatureError():
                return "its token is not valid yet: compare the clocks"
            case _:
                return f"its token is not valid: {error}"


class _SigningCredentials(_TokenCredentials):
    """Tokens signed here."""

    kind = "a key that signs tokens"

    def _whom(self, subject: str) -> str:
        # Only here: whoever has a trusted key can name anybody, but who gets tokens from an issuer cannot.
        return _ENDING.sub("", subject)

    def __init__(self, identity: Jwt, name: str) -> None:
        super().__init__(identity)
        self._signing = identity
        self.id = _of_instance(identity.subject or name)

    def token(self) -> str:
        import jwt

        now = time.time()
        claims = {
            "iss": self._signing.issuer,
            "sub": self.id,
            "aud": list(self._signing.audience),
            "iat": int(now),
            "exp": int(now + self._signing.duration),
            _INTRODUCES: True,
        }
        key = read_text(self._signing.key, "private key")
        return jwt.encode(claims, key, algorithm=signing_algorithm(self._signing.key))


def _of_instance(subject: str) -> str:
    """Give a subject an ending of this instance's own, which its peers take off again.

    SLIM makes the id of an instance from the subject of its tokens: with one subject, two replicas would be
    one to SLIM. Two ends of one MLS session must have different ones besides (RFC 9420).
    """
    return f"{subject}#{secrets.token_hex(8)}"


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
