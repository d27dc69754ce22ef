"""TLS and the node's own checks in the terms of the bindings."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from slim_actors.checks import check_kind
from slim_actors.endpoints import Endpoint
from slim_actors.errors import ConfigurationError
from slim_actors.transport.bindings import slim

# Most nodes ask for neither, and each start would pay for both.
if TYPE_CHECKING:
    from slim_actors.auth import Auth, TokenCheck
    from slim_actors.tls import Tls

__all__ = ["Connection", "node_certificate", "server_config", "tls_problem"]

_HANDSHAKE_WITHIN = 2.0


class Connection(Struct, frozen=True):
    """How to connect to a node.

    Attributes:
        endpoint: Where it is.
        tls: The certificates; by default the system's CAs for ``https://`` and ``wss://``.
        auth: What the node asks for, besides.
    """

    endpoint: Endpoint
    tls: Tls | None = None
    auth: Auth | None = None

    def check(self) -> None:
        """Look at the files: the bindings panic or hang on those that are not what they should be.

        Raises:
            ConfigurationError: A file cannot be used, or a value is of another kind.
        """
        if self.tls is not None:
            from slim_actors.tls import Tls

            check_kind("tls", self.tls, Tls)
            if self.endpoint.is_secure:
                self.tls.context(ssl.Purpose.SERVER_AUTH)
        if self.auth is not None:
            from slim_actors.auth import Auth
            from slim_actors.transport.login import shown

            check_kind("auth", self.auth, Auth)
            shown(self.auth)

    def config(self, spelling: int) -> slim.ClientConfig:
        """Make what the bindings connect with.

        Args:
            spelling: See `Endpoint.respelled`.
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
        config.backoff = _BACKOFF
        if self.auth is not None:
            from slim_actors.transport.login import shown

            config.auth = shown(self.auth)
        return config


# It governs reconnects too, so it must not run out; the caller bounds the first connect. Pauses of up to
# 0.2, 0.4, 0.8 and then 1.5 s (the bindings multiply the powers of the base by the factor), each at random
# between nothing and that, so that a thousand clients do not come back to a node in the same moment.
_BACKOFF: Any = slim.BackoffConfig.EXPONENTIAL(
    config=slim.ExponentialBackoff(
        base=timedelta(milliseconds=2),
        factor=100,
        max_delay=timedelta(seconds=1.5),
        max_attempts=2**31,
        jitter=True,
    )
)


def server_config(endpoint: Endpoint, tls: Tls | None, auth: Auth | TokenCheck | None) -> slim.ServerConfig:
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
        from slim_actors.transport.login import asked

        config.auth = asked(auth)
    return config


async def tls_problem(connection: Connection) -> str | None:
    """Say what is wrong with TLS between here and a node, by a handshake of Python's own; None if nothing is.

    The bindings say it in their own words, or not at all where a node wants a certificate.
    """
    endpoint = connection.endpoint
    if not endpoint.is_secure:
        if endpoint.scheme == "unix" or await node_certificate(connection) is None:
            return None
        return f"it speaks TLS, and {endpoint.scheme}:// does not: use {endpoint.scheme}s://"
    context = _context(connection.tls)
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
        advice = "" if connection.tls and connection.tls.ca else "; give its CA with --tls-ca"
        return f"the node's certificate is not trusted ({error.verify_message.rstrip('.')}){advice}"
    except ssl.SSLError as error:
        return _refusal(error, connection.tls)
    except (OSError, TimeoutError):
        return None
    return None


async def node_certificate(connection: Connection) -> bytes | None:
    """Give the certificate that a node shows, in PEM and whatever it is worth; None if it shows none."""
    context = _context(connection.tls)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    endpoint = connection.endpoint
    try:
        async with asyncio.timeout(_HANDSHAKE_WITHIN):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except (OSError, TimeoutError):
        return None
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(shown).encode() if shown else None


def _context(tls: Tls | None) -> ssl.SSLContext:
    from slim_actors.tls import Tls

    return (tls or Tls()).context(ssl.Purpose.SERVER_AUTH)


def _refusal(error: ssl.SSLError, tls: Tls | None) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "certificate required" in reason:
        return "the node asks for a client certificate: give --tls-cert and --tls-key"
    if tls is not None and tls.cert is not None:
        if "certificate expired" in reason:
            return f"the certificate {tls.cert} has expired"
        # The second is of a CA that is called like the node's, and is another.
        if any(one in reason for one in ("unknown ca", "decrypt error", "bad certificate")):
            return f"the node does not trust the certificate {tls.cert}"
    if "wrong version number" in reason or "record layer failure" in reason:
        return "what listens there does not speak TLS"
    return f"TLS failed: {reason}"


def _own(tls: Tls) -> Any:
    return slim.TlsSource.FILE(cert=str(tls.cert), key=str(tls.key))


def _ca(tls: Tls) -> Any:
    return slim.CaSource.FILE(path=str(tls.ca))
