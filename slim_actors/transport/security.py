"""TLS and the node's own checks in the terms of the bindings."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import timedelta
from typing import Any

from attrs import frozen

from slim_actors.endpoints import Endpoint
from slim_actors.errors import ConfigurationError
from slim_actors.tls import Basic, Tls
from slim_actors.transport.bindings import slim

__all__ = ["Connection", "server_config", "tls_problem"]

_HANDSHAKE_WITHIN = 2.0


@frozen
class Connection:
    """How to connect to a node.

    Attributes:
        endpoint: Where it is.
        tls: The certificates; by default the system's CAs for ``https://`` and ``wss://``.
        auth: What the node asks for, besides.
    """

    endpoint: Endpoint
    tls: Tls | None = None
    auth: Basic | None = None

    def check(self) -> None:
        """Look at the certificates: the bindings panic or hang on files that are not what they should be.

        Raises:
            ConfigurationError: A file cannot be used.
        """
        if self.tls is not None and self.endpoint.is_secure:
            self.tls.context(ssl.Purpose.SERVER_AUTH)

    def config(self, spelling: int, reconnect_every: float) -> slim.ClientConfig:
        """Make what the bindings connect with.

        Args:
            spelling: See `Endpoint.respelled`.
            reconnect_every: Seconds between attempts.
        """
        where = self.endpoint.respelled(spelling)
        if self.endpoint.is_secure:
            config = slim.new_secure_client_config(where)
            if self.tls is not None:
                if self.tls.cert is not None:
                    config.tls.source = _own(self.tls)
                if self.tls.ca is not None:
                    config.tls.ca_source = _ca(self.tls)
                    config.tls.include_system_ca_certs_pool = False
        else:
            config = slim.new_insecure_client_config(where)
        # This policy governs reconnects too, so it must not run out; the caller bounds the first connect.
        backoff: Any = slim.BackoffConfig.FIXED_INTERVAL(
            config=slim.FixedIntervalBackoff(interval=timedelta(seconds=reconnect_every), max_attempts=2**31)
        )
        config.backoff = backoff
        if self.auth is not None:
            client_auth: Any = slim.ClientAuthenticationConfig.BASIC(config=_basic(self.auth))
            config.auth = client_auth
        return config


def server_config(endpoint: Endpoint, tls: Tls | None, auth: Basic | None) -> slim.ServerConfig:
    """Make what a node listens with.

    Raises:
        ConfigurationError: Certificates are missing for a secure endpoint, or cannot be used.
    """
    where = endpoint.to_listen()
    if not endpoint.is_secure:
        config = slim.new_insecure_server_config(where)
    else:
        if tls is None or tls.cert is None:
            raise ConfigurationError(
                f"A node at {endpoint} needs a certificate: give --tls-cert and --tls-key "
                "(slim-actors certs makes some for development)."
            )
        tls.context(ssl.Purpose.CLIENT_AUTH)
        config = slim.new_secure_server_config(where, _own(tls))
        if tls.ca is not None:
            config.tls.client_ca = _ca(tls)
    if auth is not None:
        server_auth: Any = slim.ServerAuthenticationConfig.BASIC(config=_basic(auth))
        config.auth = server_auth
    return config


async def tls_problem(connection: Connection) -> str | None:
    """Say what is wrong with TLS between here and a node, by a handshake of Python's own; None if nothing is.

    The bindings say it in their own words, or not at all where a node wants a certificate.
    """
    endpoint = connection.endpoint
    context = (connection.tls or Tls()).context(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(["h2"] if endpoint.scheme == "https" else ["http/1.1"])
    try:
        async with asyncio.timeout(_HANDSHAKE_WITHIN):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
            try:
                # TLS 1.3 says only after the handshake that the client's certificate will not do (RFC 8446,
                # section 4.4.2.4); a node that is content says nothing, or greets.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HANDSHAKE_WITHIN / 4):
                        await reader.read(1)
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        return f"the node's certificate is not trusted ({error.verify_message})"
    except ssl.SSLError as error:
        return _refusal(error, connection.tls)
    except (OSError, TimeoutError):
        return None
    return None


def _refusal(error: ssl.SSLError, tls: Tls | None) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "certificate required" in reason:
        return "the node asks for a client certificate: give --tls-cert and --tls-key"
    if "unknown ca" in reason and tls is not None and tls.cert is not None:
        return f"the node does not trust the certificate {tls.cert}"
    if "wrong version number" in reason or "record layer failure" in reason:
        return "what listens there does not speak TLS"
    return f"TLS failed: {reason}"


def _own(tls: Tls) -> Any:
    return slim.TlsSource.FILE(cert=str(tls.cert), key=str(tls.key))


def _ca(tls: Tls) -> Any:
    return slim.CaSource.FILE(path=str(tls.ca))


def _basic(auth: Basic) -> slim.BasicAuth:
    return slim.BasicAuth(username=auth.user, password=auth.password)
