"""How to reach the network and who one is there: each setting once, with its variable and what it means.

The command line makes its options from these, a `Runtime` takes from here what it is not given, and replicas
get theirs as environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import Attribute, field, fields, frozen

from slim_actors.checks import is_passable
from slim_actors.configfile import COMMANDS, ConfigFile, find_file, nearest, private, read_file
from slim_actors.configfile import VARIABLE as FILE_VARIABLE
from slim_actors.endpoints import DEFAULT_ENDPOINT, Endpoint
from slim_actors.errors import ConfigurationError
from slim_actors.files import to_path
from slim_actors.identity import Identity, Jwt, SharedSecret, Spire, StaticJwt
from slim_actors.secret import local_secret
from slim_actors.slimconfig import VARIABLE as SLIM_VARIABLE
from slim_actors.slimconfig import read_slim_config, slim_name
from slim_actors.trust import is_private_key

# Most nodes ask for neither, and each start would pay for both.
if TYPE_CHECKING:
    from slim_actors.auth import Auth, Basic, Oidc, TokenCheck
    from slim_actors.tls import Tls

__all__ = ["Settings"]

_IDENTITIES = ("shared_secret", "jwt", "spire_socket")
_LOGINS = ("node_user", "node_password", "node_jwt", "node_oidc")
_TOGETHER = (_IDENTITIES, _LOGINS)
"""If a nearer source has one of these, the others of its kind are not taken from a farther one."""
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off", "")


def _setting(variable: str, meaning: str, *, default: Any = None, kind: str = "") -> Any:
    metadata = {"variable": variable, "meaning": meaning, "kind": kind}
    return field(default=default, kw_only=True, repr=kind != "secret", metadata=metadata)


@frozen
class Settings:
    """Settings of a connection to a node. None, empty and false mean: not given.

    Make them with `find`, which looks everywhere.
    """

    endpoint: str = _setting(
        "SLIM_ENDPOINT",
        "The SLIM node: http://, https://, ws:// or wss://HOST:PORT, or unix:///PATH.",
        default=DEFAULT_ENDPOINT,
    )
    shared_secret: str | None = _setting(
        "SLIM_SHARED_SECRET",
        "The secret that agents and callers share, 32 bytes at least; for development. "
        "By default this user's own, made at the first use.",
        kind="secret",
    )
    jwt: str | None = _setting(
        "SLIM_JWT",
        "File with the token that says who this is, or with the private key that signs tokens.",
        kind="path",
    )
    bundle: str | None = _setting(
        "SLIM_BUNDLE",
        "File with the keys whose tokens are believed: PEM, JWKS or a bundle; with --jwt.",
        kind="path",
    )
    audience: tuple[str, ...] = _setting(
        "SLIM_AUDIENCE", "What tokens are for; repeatable; with --jwt or --spire-socket.", default=()
    )
    issuer: str | None = _setting("SLIM_ISSUER", "Who vouches for tokens; with --jwt.")
    subject: str | None = _setting(
        "SLIM_SUBJECT", "Whom the signed tokens name, by default the agent's name; with --jwt and a key."
    )
    spire_socket: str | None = _setting(
        "SLIM_SPIRE_SOCKET", "The socket of the SPIFFE Workload API that says who this is.", kind="path"
    )
    tls_ca: str | None = _setting(
        "SLIM_TLS_CA", "File with the CA that the other end's certificate must be from.", kind="path"
    )
    tls_cert: str | None = _setting(
        "SLIM_TLS_CERT", "File with the own certificate; with --tls-key.", kind="path"
    )
    tls_key: str | None = _setting("SLIM_TLS_KEY", "File with the private key of --tls-cert.", kind="path")
    node_user: str | None = _setting(
        "SLIM_NODE_USER", "The user that the node asks for; with --node-password."
    )
    node_password: str | None = _setting("SLIM_NODE_PASSWORD", "The password of --node-user.", kind="secret")
    node_jwt: str | None = _setting(
        "SLIM_NODE_JWT",
        "File with the token that the node asks for, or with the private key that signs tokens for it.",
        kind="path",
    )
    node_bundle: str | None = _setting(
        "SLIM_NODE_BUNDLE",
        "File with the keys whose tokens a node believes; for slim-actors node.",
        kind="path",
    )
    node_audience: tuple[str, ...] = _setting(
        "SLIM_NODE_AUDIENCE",
        "What the tokens for the node are for; repeatable; with --node-jwt, --node-bundle or --node-oidc.",
        default=(),
    )
    node_issuer: str | None = _setting("SLIM_NODE_ISSUER", "Who vouches for the tokens for the node.")
    node_subject: str | None = _setting(
        "SLIM_NODE_SUBJECT", "Whom the tokens signed for the node name, by default the issuer."
    )
    node_oidc: str | None = _setting(
        "SLIM_NODE_OIDC",
        "URL of the OpenID Connect issuer whose tokens the node asks for; --node-user and --node-password "
        "are the client's id and secret there.",
    )
    node_scope: str | None = _setting("SLIM_NODE_SCOPE", "The scope to ask for; with --node-oidc.")
    insecure: bool = _setting(
        "SLIM_INSECURE",
        "Allow an endpoint on another machine without TLS: anyone between reads along.",
        default=False,
    )
    sources: tuple[str, ...] = field(default=(), kw_only=True, eq=False)
    """The files that some of them are from."""
    endpoint_from: str = field(default="", kw_only=True, eq=False)
    """Where the endpoint stands, if it was not given itself: how a sentence about it begins."""

    @classmethod
    def find(cls, *, config: str | None = None, slim_config: str | None = None, **given: Any) -> Self:
        """Give the settings: each as given if it is not None, else as the nearest of these says.

        The environment; SLIM's client configuration; the configuration file (see `find_file`); the default.
        What belongs together is taken from one of them as a whole: which identity, and which login at the
        node. What a file allows by ``insecure`` is not allowed for an endpoint that comes from elsewhere.

        Args:
            config: A configuration file, instead of the one that is found.
            slim_config: SLIM's client configuration, instead of the one that ``SLIM_CLIENT_CONFIG`` names.
            given: Settings by name, as in an option or in code.

        Raises:
            ConfigurationError: A value cannot be used, or a file cannot be read.
        """
        return cls.found_in(read_file(Path(config)) if config else find_file(), slim_config, **given)

    @classmethod
    def found_in(cls, file: ConfigFile | None, slim_config: str | None = None, **given: Any) -> Self:
        """Give the settings as `find` does, where the configuration file has been read already.

        Raises:
            ConfigurationError: A value cannot be used, or a file cannot be read.
        """
        slim = slim_config or os.environ.get(SLIM_VARIABLE)
        files = _over(_from_file(file) if file else {}, read_slim_config(slim) if slim else {})
        own = {name: value for name, value in given.items() if value is not None}
        nearer = _over(_from_environment(os.environ), own)
        if "endpoint" in nearer:
            # It was allowed for another endpoint.
            files.pop("insecure", None)
        named = (str(file.path) if file else "", slim_name(slim) if slim else "")
        found = _over(files, nearer)
        for one in cls.each():
            _check_passable(one, found.get(one.name))
        place = ""
        if "endpoint" in nearer:
            place = "" if "endpoint" in own else "SLIM_ENDPOINT: "
        elif file and "endpoint" in file.values and not slim:
            # That in a configuration of SLIM's is checked where it is read.
            place = f"{file.where('endpoint')}: "
        return cls(**found, sources=tuple(name for name in named if name), endpoint_from=place)

    @classmethod
    def each(cls) -> list[Attribute[Any]]:
        """Give the settings; the metadata of each has its ``variable``, ``meaning`` and ``kind``."""
        return [one for one in fields(cls) if one.metadata]

    @property
    def node(self) -> Endpoint:
        """Where the node is.

        Raises:
            ConfigurationError: It is no endpoint, or a plain one on another machine without `insecure`.
        """
        endpoint = self._endpoint()
        if not endpoint.is_local and not endpoint.is_secure and not self.insecure:
            what = "is open to other machines" if endpoint.is_everywhere else "is another machine"
            raise ConfigurationError(
                f"{self.endpoint_from}{endpoint} {what}, and without TLS anyone between reads along: "
                "use https:// or wss://, or say --insecure (insecure=True) if that is what you want."
            )
        return endpoint

    def identity(self) -> Identity:
        """Give who this is.

        Raises:
            ConfigurationError: Two kinds are given, or one by half, or none for a node on another machine.
        """
        chosen = [f"--{kind.replace('_', '-')}" for kind in _IDENTITIES if getattr(self, kind)]
        if len(chosen) > 1:
            raise ConfigurationError(f"{' and '.join(chosen)} are given, but an agent has one identity.")
        if self.jwt:
            return self._token_identity(self.jwt)
        if self.spire_socket:
            return Spire(self.spire_socket, audience=self.audience)
        if self.shared_secret:
            return SharedSecret(self.shared_secret)
        if not self._endpoint().is_local:
            raise ConfigurationError(
                f"Agents at {self.endpoint} need an identity: give --jwt with --bundle and --audience, "
                "--spire-socket, or for testing --shared-secret (only this machine has one by default)."
            )
        return SharedSecret(local_secret())

    def tls(self) -> Tls | None:
        """Give the certificates, if any is given.

        Raises:
            ConfigurationError: A certificate comes without its key, or the other way round.
        """
        if not (self.tls_ca or self.tls_cert or self.tls_key):
            return None
        from slim_actors.tls import Tls

        return Tls(self.tls_ca, self.tls_cert, self.tls_key)

    def auth(self) -> Auth | None:
        """Give what is shown to the node, if anything is given.

        Raises:
            ConfigurationError: Two kinds are given, or one by half.
        """
        self._check_logins()
        if self.node_oidc:
            return self._oidc(self.node_oidc)
        if self.node_jwt:
            return self._node_token(self.node_jwt)
        if self.node_user or self.node_password:
            return self._basic()
        return None

    def asked(self) -> Basic | Oidc | TokenCheck | None:
        """Give what a node with these settings asks for, if anything.

        Raises:
            ConfigurationError: Two kinds are given, or one by half.
        """
        self._check_logins()
        if self.node_oidc:
            return self._oidc(self.node_oidc)
        if self.node_bundle:
            from slim_actors.auth import TokenCheck

            return TokenCheck(self.node_bundle, audience=self.node_audience, issuer=self.node_issuer or "")
        if self.node_jwt:
            raise ConfigurationError(
                "A node needs --node-bundle, the keys that it trusts, and no --node-jwt."
            )
        if self.node_user or self.node_password:
            return self._basic()
        return None

    def variables(self) -> dict[str, str]:
        """Give the environment variables by which another process finds the same settings, and no others."""
        own = {one.metadata["variable"]: _as_text(getattr(self, one.name)) for one in self.each()}
        # Empty: no file is looked for, whatever it would say meanwhile.
        return {**own, FILE_VARIABLE: "", SLIM_VARIABLE: ""}

    def _endpoint(self) -> Endpoint:
        try:
            return Endpoint.parse(self.endpoint)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.endpoint_from}{error}") from None

    def _check_logins(self) -> None:
        basic = "node_user" if self.node_user and not self.node_oidc else ""
        kinds = [kind for kind in (basic, "node_jwt", "node_oidc") if kind and getattr(self, kind)]
        if len(kinds) > 1:
            options = " and ".join(f"--{kind.replace('_', '-')}" for kind in kinds)
            raise ConfigurationError(f"{options} are given, but a node asks for one of them.")

    def _basic(self) -> Basic:
        from slim_actors.auth import Basic

        return Basic(self.node_user or "", self.node_password or "")

    def _oidc(self, issuer: str) -> Oidc:
        from slim_actors.auth import Oidc

        if len(self.node_audience) > 1:
            raise ConfigurationError("With --node-oidc there may be one --node-audience.")
        return Oidc(
            issuer,
            client_id=self.node_user or "",
            client_secret=self.node_password or "",
            audience="".join(self.node_audience),
            scope=self.node_scope or "",
        )

    def _node_token(self, file: str) -> Jwt | StaticJwt:
        # A node's operator says what it wants to see in a token that is signed elsewhere.
        if not is_private_key(file):
            return StaticJwt(file, trust=self.node_bundle, audience=self.node_audience or ("slim",))
        if not self.node_issuer:
            raise ConfigurationError(
                "--node-jwt with a private key needs --node-issuer: who vouches for the tokens."
            )
        return Jwt(
            file,
            trust=self.node_bundle,
            audience=self.node_audience,
            issuer=self.node_issuer,
            subject=self.node_subject or "",
        )

    def _token_identity(self, file: str) -> Jwt | StaticJwt:
        if not self.bundle:
            raise ConfigurationError("--jwt needs --bundle: the file with the keys that are trusted.")
        if not is_private_key(file):
            return StaticJwt(file, trust=self.bundle, audience=self.audience, issuer=self.issuer or "")
        if not self.issuer:
            raise ConfigurationError("--jwt with a private key needs --issuer: who vouches for the tokens.")
        return Jwt(
            file, trust=self.bundle, audience=self.audience, issuer=self.issuer, subject=self.subject or ""
        )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {one: environment.get(one.metadata["variable"]) for one in Settings.each()}
    return {one.name: _read(one, text) for one, text in found.items() if text}


def _read(one: Attribute[Any], text: str) -> Any:
    if isinstance(one.default, tuple):
        return tuple(text.replace(",", " ").split())
    if not isinstance(one.default, bool):
        return text
    if text.lower() not in (*_YES, *_NO):
        raise ConfigurationError(f"{one.metadata['variable']} is {text!r}, but must be 1 or 0.")
    return text.lower() in _YES


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(int(value)) if isinstance(value, bool) else value or ""


def _from_file(file: ConfigFile) -> dict[str, Any]:
    known = {one.name: one for one in Settings.each()}
    values: dict[str, Any] = {}
    for key, value in file.values.items():
        if key not in known:
            raise ConfigurationError(
                f"{file.where(key)}: there is no setting {key}{nearest(key, [*known, *COMMANDS])}"
            )
        values[key] = _of_file(known[key], value, file)
    return values


def _of_file(one: Attribute[Any], value: Any, file: ConfigFile) -> Any:
    kind: type = type(one.default) if one.default is not None else str
    fits = isinstance(value, kind)
    if kind is tuple:
        value = [value] if isinstance(value, str) else value
        fits = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    is_secret = one.metadata["kind"] == "secret"
    if is_secret:
        private(file.path, one.name)
    if not fits:
        words = {str: "a text", bool: "true or false", tuple: "a text or a list of texts"}
        is_now = "is of another kind" if is_secret else f"is {value!r}"
        raise ConfigurationError(f"{file.where(one.name)}: {one.name} {is_now}, but must be {words[kind]}.")
    folder = file.path.absolute().parent
    if one.metadata["kind"] == "path":
        return str(folder / to_path(value))
    if one.name == "endpoint" and value.startswith("unix://."):
        return f"unix://{folder / value.removeprefix('unix://')}"
    return tuple(value) if kind is tuple else value


def _check_passable(one: Attribute[Any], value: Any) -> None:
    """Refuse what could not be in a variable, which is how replicas get it."""
    for text in value if isinstance(value, tuple) else (value,):
        # A path has the bytes of the system; whoever opens it says what is wrong with it.
        if isinstance(text, str) and one.metadata["kind"] != "path" and not is_passable(text):
            raise ConfigurationError(f"{one.name} has a null character, or one that is no Unicode (UTF-8).")


def _over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Lay settings over others. What belongs together is laid over as a whole, whatever its kind."""
    for group in _TOGETHER:
        if any(upper.get(name) for name in group):
            lower = {name: value for name, value in lower.items() if name not in group}
    return {**lower, **upper}
