"""Whom a node refuses for TLS: SLIM's core says it in its log alone, and that goes to standard output."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from slim_actors.throttle import Throttle
from slim_actors.transport.bindings import initialise

__all__ = ["telling_refusals"]

_logger = logging.getLogger("slim_actors.node")

_FILTERS = ["off", "tonic_tls::server=debug", "slim_config::websocket::server=warn"]
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
_REFUSED = re.compile(rb"(?:tls|TLS) accept error error=(.+)")
# A connection without a word is how clients look whether anybody listens.
_NOT_TOLD = "tls handshake eof"
_WORDS = {
    "peer sent no certificates": "it shows no certificate",
    "received fatal alert: UnknownCA": "it does not trust this node's certificate",
    "received fatal alert: BadCertificate": "it does not trust this node's certificate",
    "received fatal alert: CertificateExpired": "it says that this node's certificate has expired",
    "invalid peer certificate: UnknownIssuer": "its certificate is from a CA that is not trusted here",
    "invalid peer certificate: BadSignature": "its certificate is from a CA that is not trusted here",
    "invalid peer certificate: Expired": "its certificate has expired",
}


@contextlib.contextmanager
def telling_refusals() -> Iterator[None]:
    """Log whom the nodes of this process refuse for TLS, as logger ``slim_actors.node``.

    For a process that runs a node and nothing else: while this is entered, its standard output goes through a
    pipe. With ``RUST_LOG`` set, everything is left as it is, for whoever wants to look inside.
    """
    if os.environ.get("RUST_LOG"):
        yield
        return
    initialise(_FILTERS, for_node=True)
    sys.stdout.flush()
    real = os.dup(1)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(writing)
    reader = threading.Thread(target=_read, args=(reading, real), daemon=True)
    reader.start()
    with os.fdopen(os.dup(real), "w", buffering=1) as own, contextlib.redirect_stdout(own):
        try:
            yield
        finally:
            # The pipe has no other writer: the reader ends.
            os.dup2(real, 1)
            reader.join()
            os.close(real)


def _read(reading: int, real: int) -> None:
    time_to_log = Throttle()
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            match = _REFUSED.search(_COLOUR.sub(b"", line).strip())
            if match is None:
                with contextlib.suppress(OSError):
                    os.write(real, line)
                continue
            why = match[1].decode(errors="replace")
            if why != _NOT_TOLD and time_to_log(why):
                _logger.warning("A client is refused: %s.", _in_words(why))


def _in_words(why: str) -> str:
    known = (words for start, words in _WORDS.items() if why.startswith(start))
    return next(known, why)
