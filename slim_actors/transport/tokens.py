"""Signing and checking JSON Web Tokens in the terms of the bindings."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from slim_actors.files import read_text
from slim_actors.identity import Jwt
from slim_actors.transport.bindings import slim
from slim_actors.trust import Trust, signing_algorithm

__all__ = ["checking", "signing"]

_ALGORITHMS = {
    "ES256": slim.JwtAlgorithm.ES256,
    "ES384": slim.JwtAlgorithm.ES384,
    "RS256": slim.JwtAlgorithm.RS256,
    "EdDSA": slim.JwtAlgorithm.ED_DSA,
}


def signing(identity: Jwt, subject: str) -> slim.ClientJwtAuth:
    """Make what signs tokens.

    Raises:
        ConfigurationError: The key cannot be used.
    """
    algorithm = _ALGORITHMS[signing_algorithm(identity.key)]
    # Its text, not its path: the bindings panic on a file that is missing.
    text = read_text(identity.key, "private key")
    key: Any = slim.JwtKeyType.ENCODING(key=_key(text, algorithm, slim.JwtKeyFormat.PEM))
    return slim.ClientJwtAuth(
        key=key,
        audience=list(identity.audience),
        issuer=identity.issuer,
        subject=subject,
        duration=timedelta(seconds=identity.duration),
    )


def checking(trust: Path, audience: Iterable[str], issuer: str) -> slim.JwtAuth:
    """Make what checks tokens.

    Raises:
        ConfigurationError: The file with the trusted keys cannot be used.
    """
    # In a JWKS the algorithm of each key is its own; this one is only to be there.
    key: Any = slim.JwtKeyType.DECODING(
        key=_key(Trust(trust).jwks, slim.JwtAlgorithm.ES256, slim.JwtKeyFormat.JWKS)
    )
    return slim.JwtAuth(
        key=key, audience=list(audience), issuer=issuer or None, subject=None, duration=timedelta(hours=1)
    )


def _key(text: str, algorithm: slim.JwtAlgorithm, form: slim.JwtKeyFormat) -> slim.JwtKeyConfig:
    data: Any = slim.JwtKeyData.DATA(value=text)
    return slim.JwtKeyConfig(algorithm=algorithm, format=form, key=data)
