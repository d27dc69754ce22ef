"""What is shown to a node, and what a node asks for, in the terms of the bindings."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from slim_actors.auth import Auth, Basic, Oidc, TokenCheck
from slim_actors.errors import ConfigurationError
from slim_actors.files import read_text
from slim_actors.identity import Jwt, StaticJwt, trusted
from slim_actors.transport.bindings import slim
from slim_actors.transport.tokens import checking, signing

__all__ = ["asked", "refusal", "shown"]

_READ_AGAIN_AFTER = timedelta(minutes=1)
_OIDC_WITHIN = timedelta(seconds=3)
_OIDC_KEYS_VALID = timedelta(hours=1)


def shown(auth: Auth) -> Any:
    """Make what a client shows to the node.

    Raises:
        ConfigurationError: A file cannot be used.
    """
    kinds = slim.ClientAuthenticationConfig
    match auth:
        case Basic():
            return kinds.BASIC(config=_basic(auth))
        case Jwt():
            return kinds.JWT(config=signing(auth, auth.subject or auth.issuer))
        case StaticJwt():
            _check_token(auth)
            return kinds.STATIC_JWT(
                config=slim.StaticJwtAuth(token_file=str(auth.token), duration=_READ_AGAIN_AFTER)
            )
        case Oidc():
            if not auth.client_id:
                raise ConfigurationError(
                    f"To log in at {auth.issuer}, give the client's id and secret: --node-user and "
                    "--node-password."
                )
            return kinds.OIDC(config=_oidc(auth))


def asked(auth: Auth | TokenCheck) -> Any:
    """Make what a node asks for.

    Raises:
        ConfigurationError: A file cannot be used, or what a node needs is not given.
    """
    kinds = slim.ServerAuthenticationConfig
    match auth:
        case Basic():
            return kinds.BASIC(config=_basic(auth))
        case TokenCheck():
            return kinds.JWT(config=checking(auth.trust, auth.audience, auth.issuer))
        case Jwt() | StaticJwt():
            return kinds.JWT(config=checking(trusted(auth), auth.audience, auth.issuer))
        case Oidc():
            if not auth.audience:
                raise ConfigurationError(
                    f"A node that believes tokens from {auth.issuer} needs to know what they must be for: "
                    "--node-audience."
                )
            return kinds.OIDC(config=_oidc(auth))


def refusal(auth: Auth | None) -> str:
    """Say what a node that refuses this may want; it does not say itself."""
    match auth:
        case None:
            return "it asks for a user and password, or for a token"
        case Basic():
            return "it refuses the user and password"
        case Oidc():
            return f"it refuses the token from {auth.issuer}, or that gave none to {auth.client_id}"
        case Jwt():
            return f"it refuses the token that {auth.key} signs: compare key, audience and issuer"
        case StaticJwt():
            return _flaw(auth) or f"it refuses the token {auth.token}: compare key, audience and issuer"


def _check_token(auth: StaticJwt) -> None:
    # SLIM sends the file as it stands, and panics if it is not there.
    text = read_text(auth.token, "token")
    if text != text.strip():
        raise ConfigurationError(
            f"The token {auth.token} has a space or line break before or after it, and SLIM would send that "
            "too: remove it."
        )


def _flaw(auth: StaticJwt) -> str | None:
    import jwt

    try:
        claims = jwt.decode(read_text(auth.token, "token"), options={"verify_signature": False})
        over = time.time() - float(claims["exp"])
    except (ConfigurationError, jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        return None
    if over > 0:
        return f"the token {auth.token} expired {over:.0f} s ago"
    if isinstance(claims.get("aud"), str):
        # RFC 7519 allows a lone text; the bindings' check of keys does not, that of an OIDC issuer does.
        return f"it refuses the token {auth.token}, perhaps for its aud, which SLIM wants to be a list"
    return None


def _basic(auth: Basic) -> slim.BasicAuth:
    return slim.BasicAuth(username=auth.user, password=auth.password)


def _oidc(auth: Oidc) -> slim.OidcConfig:
    return slim.OidcConfig(
        issuer_url=auth.issuer,
        client_id=auth.client_id or None,
        client_secret=auth.client_secret or None,
        audience=auth.audience or None,
        refresh_token=None,
        refresh_token_file=None,
        access_token_file=None,
        scope=auth.scope or None,
        timeout=_OIDC_WITHIN,
        jwks_ttl=_OIDC_KEYS_VALID,
        claim_cache_ttl=None,
        policy=None,
    )
