"""How to reach the network and who one is there: each setting once, with its variable and what it means.

The command line makes its options from these, a `Runtime` takes from here what it is not given, and replicas
get theirs as environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from attrs import Attribute, field, fields, frozen

from slim_actors.endpoints import DEFAULT_ENDPOINT, Endpoint
from slim_actors.errors import ConfigurationError
from slim_actors.identity import Identity, Jwt, SharedSecret, Spire, StaticJwt
from slim_actors.secret import local_secret
from slim_actors.tls import Basic, Tls
from slim_actors.trust import is_private_key

__all__ = ["Settings"]

_IDENTITIES = ("shared_secret", "jwt", "spire_socket")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off", "")


def _setting(variable: str, meaning: str, *, default: Any = None) -> Any:
    return field(default=default, kw_only=True, metadata={"variable": variable, "meaning": meaning})


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
    )
    jwt: str | None = _setting(
        "SLIM_JWT", "File with the token that says who this is, or with the private key that signs tokens."
    )
    bundle: str | None = _setting(
        "SLIM_BUNDLE", "File with the keys whose tokens are believed: PEM, JWKS or a bundle; with --jwt."
    )
    audience: tuple[str, ...] = _setting(
        "SLIM_AUDIENCE",
        "What tokens are for; repeatable; with --jwt or --spire-socket.",
        default=(),
    )
    issuer: str | None = _setting("SLIM_ISSUER", "Who vouches for tokens; with --jwt.")
    subject: str | None = _setting(
        "SLIM_SUBJECT", "Whom the signed tokens name, by default the agent's name; with --jwt and a key."
    )
    spire_socket: str | None = _setting(
        "SLIM_SPIRE_SOCKET", "The socket of the SPIFFE Workload API that says who this is."
    )
    tls_ca: str | None = _setting(
        "SLIM_TLS_CA", "File with the CA that the other end's certificate must be from."
    )
    tls_cert: str | None = _setting("SLIM_TLS_CERT", "File with the own certificate; with --tls-key.")
    tls_key: str | None = _setting("SLIM_TLS_KEY", "File with the private key of --tls-cert.")
    node_user: str | None = _setting(
        "SLIM_NODE_USER", "The user that the node asks for; with --node-password."
    )
    node_password: str | None = _setting("SLIM_NODE_PASSWORD", "The password of --node-user.")
    insecure: bool = _setting(
        "SLIM_INSECURE",
        "Allow an endpoint on another machine without TLS: anyone between reads along.",
        default=False,
    )

    @classmethod
    def find(cls, **given: Any) -> Self:
        """Give the settings: each as given if it is not None, else as the environment says, else its default.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        values = {name: value for name, value in given.items() if value is not None}
        return cls(**_over(_from_environment(os.environ), values))

    @property
    def node(self) -> Endpoint:
        """Where the node is.

        Raises:
            ConfigurationError: It is no endpoint, or a plain one on another machine without `insecure`.
        """
        endpoint = Endpoint.parse(self.endpoint)
        if not endpoint.is_local and not endpoint.is_secure and not self.insecure:
            raise ConfigurationError(
                f"{endpoint} is another machine, and without TLS anyone between reads along: "
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
        if not Endpoint.parse(self.endpoint).is_local:
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
        return Tls(self.tls_ca, self.tls_cert, self.tls_key)

    def auth(self) -> Basic | None:
        """Give the node's user and password, if they are given.

        Raises:
            ConfigurationError: One is given without the other.
        """
        if not (self.node_user or self.node_password):
            return None
        return Basic(self.node_user or "", self.node_password or "")

    def variables(self) -> dict[str, str]:
        """Give the environment variables by which another process finds the same settings, and no others."""
        return {one.metadata["variable"]: _as_text(getattr(self, one.name)) for one in fields(type(self))}

    def _token_identity(self, file: str) -> Jwt | StaticJwt:
        if not self.bundle:
            raise ConfigurationError("--jwt needs --bundle: the file with the keys that are trusted.")
        if not is_private_key(file):
            return StaticJwt(file, trust=self.bundle, audience=self.audience, issuer=self.issuer or "")
        if not self.issuer:
            raise ConfigurationError("--jwt with a private key needs --issuer: who vouches for the tokens.")
        return Jwt(
            file,
            trust=self.bundle,
            audience=self.audience,
            issuer=self.issuer,
            subject=self.subject or "",
        )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {one: environment.get(one.metadata["variable"]) for one in fields(Settings)}
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


def _over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Lay settings over others. An identity is laid over another as a whole, whatever their kinds."""
    if any(upper.get(kind) for kind in _IDENTITIES):
        lower = {name: value for name, value in lower.items() if name not in _IDENTITIES}
    return {**lower, **upper}
