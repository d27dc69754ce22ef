"""Keys, certificates and tokens for tests, and what is wrong with some of them."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from slim_actors import Tls

AUDIENCE = "slim"
ISSUER = "the tests"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def write_key(file: Path, key: Key) -> Path:
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return file


def new_key(kind: str = "ES256") -> Key:
    if kind == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return (
        ed25519.Ed25519PrivateKey.generate() if kind == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
    )


@frozen
class Pki:
    """A folder with a trusted and an untrusted one of everything."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Pki:
        pki = cls(folder)
        write_key(folder / "good.key", new_key())
        write_key(folder / "bad.key", new_key())
        for ca, ends in (("ca", ("node", "client")), ("other-ca", ("other-client",))):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = pki._certificate(ca, key, ca, key)
            for end in ends:
                pki._certificate(end, ec.generate_private_key(ec.SECP256R1()), ca, key, certificate)
        return pki

    @property
    def trust(self) -> Path:
        return self.folder / "good.pub"

    def key(self, name: str = "good") -> Path:
        return self.folder / f"{name}.key"

    def token(
        self, subject: str, *, key: str = "good", audience: str = AUDIENCE, lives: float = 3600.0
    ) -> Path:
        """Write a token, as an issuer would."""
        claims = {"sub": subject, "iss": ISSUER, "aud": audience, "exp": int(time.time() + lives)}
        file = self.folder / f"{subject}-{key}-{audience}-{lives}.jwt".replace("/", "-")
        file.write_text(jwt.encode(claims, self.key(key).read_text(), algorithm="ES256"))
        return file

    def tls(self, end: str | None, ca: str | None = "ca") -> Tls:
        cert, key = (self.folder / f"{end}.crt", self.folder / f"{end}.pem") if end else (None, None)
        return Tls(ca=self.folder / f"{ca}.crt" if ca else None, cert=cert, key=key)

    def _certificate(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        ca: x509.Certificate | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        alternatives: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.folder / f"{name}.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return certificate


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
