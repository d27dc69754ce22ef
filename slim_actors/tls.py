"""TLS to the node and at the node: which certificates, and whether their files are any good."""

from __future__ import annotations

import ssl
from pathlib import Path

from attrs import field, frozen
from attrs.converters import optional

from slim_actors.errors import ConfigurationError
from slim_actors.files import check_readable, to_path

__all__ = ["Tls"]


@frozen
class Tls:
    """Certificates for ``https://`` and ``wss://``: all files in PEM.

    At an agent, ``ca`` says whose certificate the node must have (by default the system's CAs), and ``cert``
    with ``key`` is what the agent shows to a node that asks for one (mTLS). At a node, ``cert`` with ``key``
    is what it shows, and ``ca`` says whose certificates its clients must have (by default they need none).

    Args:
        ca: File with the CA's certificate.
        cert: File with the own certificate, signed by a CA, naming the host or address.
        key: File with the private key of ``cert``.

    Raises:
        ConfigurationError: One of ``cert`` and ``key`` is given without the other.

    Example:
        >>> Tls(ca="ca.crt", cert="client.crt", key="client.key")  # doctest: +ELLIPSIS
        Tls(ca=...Path('ca.crt'), ...)
    """

    ca: Path | None = field(default=None, converter=optional(to_path))
    cert: Path | None = field(default=None, converter=optional(to_path))
    key: Path | None = field(default=None, converter=optional(to_path))

    def __attrs_post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.cert is not None else ("key", "certificate")
            raise ConfigurationError(f"TLS has a {given} but no {missing}: give both or neither.")

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """Give the same settings for Python's own TLS, which says precisely what is wrong with them.

        Args:
            purpose: `ssl.Purpose.SERVER_AUTH` for a client, ``CLIENT_AUTH`` for a node.

        Raises:
            ConfigurationError: A file is missing, cannot be read, or holds something else.
        """
        if self.ca is not None:
            check_readable(self.ca, "CA certificate")
        try:
            context = ssl.create_default_context(purpose, cafile=self.ca)
        except (ssl.SSLError, ValueError):
            raise ConfigurationError(f"{self.ca} holds no CA certificate in PEM form.") from None
        if self.cert is None or self.key is None:
            return context
        check_readable(self.cert, "certificate")
        check_readable(self.key, "private key")
        try:
            # An empty password, or OpenSSL would ask at the terminal.
            context.load_cert_chain(self.cert, self.key, password="")
        except (ssl.SSLError, ValueError, OSError) as error:
            why = getattr(error, "reason", "") or ""
            raise ConfigurationError(
                f"The key {self.key} does not belong to the certificate {self.cert}."
                if why == "KEY_VALUES_MISMATCH"
                else f"{self.cert} and {self.key} are no certificate and unencrypted private key in PEM form."
            ) from None
        return context
