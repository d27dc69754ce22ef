"""Identities in the terms of the bindings."""

from __future__ import annotations

from typing import Any

from slim_actors.errors import ConfigurationError
from slim_actors.identity import Identity, Jwt, SharedSecret, Spire, StaticJwt, trusted
from slim_actors.transport.bindings import innermost, slim
from slim_actors.transport.tokens import checking, signing

__all__ = ["DOOR_SECRET", "create_app", "create_open_app"]

DOOR_SECRET = "slim-actors: no secret, who is there is asked and checked"  # noqa: S105 (it says so itself)
"""What apps share whose peers are checked by slim-actors alone: it keeps nobody out."""


def create_app(service: slim.Service, name: str, identity: Identity, subject: str) -> slim.App:
    """Make an app with this identity.

    A token from a file is not among what SLIM can do: the bindings sign each set-up of a session with a key
    that the token must name, and a token that somebody else issued names none. Such an app is open to all as
    far as SLIM is concerned, and each side introduces itself instead.

    Args:
        service: Whose app it is.
        name: Its name.
        identity: Who it is.
        subject: Whom the tokens name that SLIM makes for it.

    Raises:
        ConfigurationError: SLIM does not take it, or a file that it needs cannot be used.
    """
    match identity:
        case SharedSecret():
            return _create(service, name, *_by_secret(subject, identity.secret))
        case Jwt():
            return _create(service, name, *_by_key(subject, identity))
        case Spire():
            return _create(service, name, *_by_spire(identity))
        case StaticJwt():
            return create_open_app(service, name)


def create_open_app(service: slim.Service, name: str) -> slim.App:
    """Make an app to which everybody can open a session."""
    # Not by its name, which may have a space that SLIM does not take here.
    return _create(service, name, *_by_secret("slim-actors", DOOR_SECRET))


def _create(service: slim.Service, name: str, provider: Any, verifier: Any) -> slim.App:
    # The synchronous constructor: the asynchronous one panics in the bindings.
    try:
        return service.create_app(slim.Name(*name.split("/")), provider, verifier)
    except slim.SlimError as error:
        raise ConfigurationError(f"SLIM refuses the identity of {name}: {innermost(error)}.") from None


def _by_secret(subject: str, secret: str) -> tuple[Any, Any]:
    return (
        slim.IdentityProviderConfig.SHARED_SECRET(id=subject, data=secret),
        slim.IdentityVerifierConfig.SHARED_SECRET(id=subject, data=secret),
    )


def _by_key(subject: str, identity: Jwt) -> tuple[Any, Any]:
    check = checking(trusted(identity), identity.audience, identity.issuer)
    return (
        slim.IdentityProviderConfig.JWT(config=signing(identity, subject)),
        slim.IdentityVerifierConfig.JWT(config=check),
    )


def _by_spire(identity: Spire) -> tuple[Any, Any]:
    config = slim.SpireConfig(
        socket_path=f"unix://{identity.socket.absolute()}",
        target_spiffe_id=None,
        jwt_audiences=list(identity.audience),
        trust_domains=list(identity.trust_domains),
    )
    return (
        slim.IdentityProviderConfig.SPIRE(config=config),
        slim.IdentityVerifierConfig.SPIRE(config=config),
    )
