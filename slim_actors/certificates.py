"""Certificates and keys for development: a CA, a node's and a client's certificate, and a key for tokens.

Nothing here is for production: there, a certificate authority and an issuer of tokens are somebody's job.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slim_actors.errors import ConfigurationError
from slim_actors.trust import as_jwk

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["ALGORITHMS", "FILES", "LOCAL_HOSTS", "make_certificates"]

FILES = {
    "ca.crt": "the CA's certificate: what both sides trust",
    "ca.key": "its private key: whoever has it can pass for anybody",
    "node.crt": "the node's certificate",
    "node.key": "its private key",
    "client.crt": "the certificate that agents and callers show to the node",
    "client.key": "its private key",
    "jwt.key": "the private key that signs the tokens of agents and callers",
    "jwt.jwks": "its public half: whose tokens are believed",
}
"""What is made, and what it is."""

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256")

_CLOCK_SKEW = timedelta(minutes=5)
_RSA_BITS = 3072
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)(\*\.)?{_LABEL}(\.{_LABEL})*")
"""A certificate may also be for all names in a domain."""


def make_certificates(
    folder: Path, *, hosts: Iterable[str] = (), days: int = 365, algorithm: str = "ES256", force: bool = False
) -> None:
    """Make `FILES` in a folder, which is made too if it is not there. Private keys are their owner's alone.

    Args:
        folder: Where they go.
        hosts: Names and addresses of the node besides those of this machine.
        days: How long the certificates are valid, from now.
        algorithm: What signs tokens: one of `ALGORITHMS`.
        force: Replace files that exist; what trusted them must then get the new ones.

    Raises:
        ConfigurationError: A file exists already and ``force`` is not given, or cannot be written; or a host
            is none.
    """
    if days < 1:
        raise ConfigurationError(f"--days is {days}, but must be 1 or more.")
    try:
        valid = timedelta(days=days)
        datetime.now(UTC) + valid
    except OverflowError:
        raise ConfigurationError(f"--days is {days}, but no date is that far away: give fewer.") from None
    existing = [name for name in FILES if (folder / name).exists()]
    if existing and not force:
        raise ConfigurationError(
            f"{folder} has {existing[0]} already: give another folder, or replace everything with --force."
        )
    made = _make(list(dict.fromkeys([*LOCAL_HOSTS, *hosts])), valid, algorithm)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            _write(folder / name, data)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None


def _make(hosts: list[str], valid: timedelta, algorithm: str) -> dict[str, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec

    ca_key, node_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    signing = _signing_key(algorithm)
    # A name of its own: of two CAs with one name, nobody could say which one signed.
    ca = _certificate(f"slim-actors development CA {secrets.token_hex(4)}", ca_key, valid)
    node = _certificate("slim-actors node", node_key, valid, (ca, ca_key), hosts)
    client = _certificate("slim-actors client", client_key, valid, (ca, ca_key))
    jwks = {"keys": [as_jwk(signing.public_key(), Path("jwt.key"))]}
    return {
        "ca.crt": _pem(ca),
        "ca.key": _private(ca_key),
        "node.crt": _pem(node),
        "node.key": _private(node_key),
        "client.crt": _pem(client),
        "client.key": _private(client_key),
        "jwt.key": _private(signing),
        "jwt.jwks": json.dumps(jwks, indent=2).encode() + b"\n",
    }


def _signing_key(algorithm: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "RS256":
            return rsa.generate_private_key(65537, _RSA_BITS)
    raise ConfigurationError(f"--algorithm is {algorithm!r}, but must be one of {', '.join(ALGORITHMS)}.")


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    valid: timedelta,
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    hosts: Iterable[str] | None = None,
) -> x509.Certificate:
    """Make a certificate: a CA's without a signer, a node's with hosts, a client's without."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (signer[0].subject, signer[1]) if signer else (subject, key)
    now = datetime.now(UTC)
    is_ca = signer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not is_ca:
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if hosts is None else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        names = [x509.DNSName("client.invalid")] if hosts is None else [_host(one) for one in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    try:
        name = text.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST_NAME.fullmatch(name):
        raise ConfigurationError(
            f"--host {text!r} is no host name and no address: write one like node.local."
        )
    return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def _write(file: Path, data: bytes) -> None:
    # Away with the old one first: its mode, or the link that it is, is not that of the new one.
    file.unlink(missing_ok=True)
    mode = 0o600 if file.suffix == ".key" else 0o644
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
