"""The plants' certificate authority of one home: makes the hub's own certificate and one for each edge, and says who is enrolled.

secrets/plants/authority.pem, authority.key    ten years; the key never leaves this home
               hub.pem, hub.key                what the listener shows; made anew when its names change or it ends soon
               enrolled/EDGE.pem               the one certificate by which this edge may speak; removed to withdraw it
"""

import datetime as dt
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from events.errors import Refused
from hub.app.home import Home, write_atomically

EDGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # names of edges: they stand in paths, addresses and certificates
AUTHORITY_DAYS, LEAF_DAYS, RENEW_DAYS = 3650, 730, 30


class NotEnrolled(Refused):
    """Who speaks is not, or not any more, an edge of this hub."""


class Authority:
    """The authority of a home; made when it is first needed."""

    def __init__(self, home: Home) -> None:
        self._folder = home.secrets / "plants"
        self.enrolled_folder = self._folder / "enrolled"
        self.certificate_path = self._folder / "authority.pem"
        self._key_path = self._folder / "authority.key"

    def enrol(self, edge: str) -> tuple[bytes, bytes]:
        """A certificate and key (PEM) for an edge; one that it had before is void. The key is not kept here."""
        if not EDGE.fullmatch(edge):
            raise Refused(f"{edge[:80]!r} is no name for an edge: use up to 63 lower-case letters, digits, dots, dashes and underscores")
        certificate, key = self._issue(edge, [], ExtendedKeyUsageOID.CLIENT_AUTH)
        write_atomically(self.enrolled_folder / f"{edge}.pem", certificate.decode())
        return certificate, key

    def hand_over(self, edge: str, folder: Path) -> list[str]:
        """Enrol an edge and write what it needs into a folder that is there; the names of the files."""
        certificate, key = self.enrol(edge)
        files = {"edge.pem": certificate, "edge.key": key, "authority.pem": self.certificate().read_bytes()}
        for name, content in files.items():
            write_atomically(folder / name, content.decode())
        return list(files)

    def withdraw(self, edge: str) -> bool:
        """Let an edge speak no more; whether it could."""
        try:
            (self.enrolled_folder / f"{edge}.pem").unlink()
        except FileNotFoundError:
            return False
        return True

    def enrolled(self) -> dict[str, x509.Certificate]:
        """Edges by name, with their certificates."""
        if not self.enrolled_folder.is_dir():
            return {}
        return {file.stem: x509.load_pem_x509_certificate(file.read_bytes()) for file in sorted(self.enrolled_folder.glob("*.pem"))}

    def who(self, shown: bytes | None) -> str:
        """The edge whose certificate (DER) was shown. Raises `NotEnrolled` for one that is not the edge's present one."""
        if not shown:
            raise NotEnrolled("no certificate was shown: the listener of the plants takes none without")
        name = _common_name(x509.load_der_x509_certificate(shown))
        file = self.enrolled_folder / f"{name}.pem"
        if not EDGE.fullmatch(name) or not file.exists():
            raise NotEnrolled(
                f"the edge {name[:80]!r} is not enrolled here: `hub edge enrol {name[:80]}` on the hub makes it a certificate"
            )
        if x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(serialization.Encoding.DER) != shown:
            raise NotEnrolled(f"the edge {name!r} was enrolled anew since: give it its new certificate")
        return name

    def context(self, names: Sequence[str]) -> ssl.SSLContext:
        """What the listener needs: its own certificate, and that clients must show one of this authority."""
        certificate, key = self._own(names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(self.certificate())
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def certificate(self) -> Path:
        """The authority's certificate, which edges trust."""
        self._authority()
        return self.certificate_path

    # -- inside

    def _own(self, names: Sequence[str]) -> tuple[Path, Path]:
        certificate, key = self._folder / "hub.pem", self._folder / "hub.key"
        wanted = sorted({*names, "localhost", "127.0.0.1", socket.gethostname()})
        if certificate.exists() and key.exists():
            known = x509.load_pem_x509_certificate(certificate.read_bytes())
            left = known.not_valid_after_utc - datetime.now(UTC)
            if _names(known) == wanted and left > timedelta(days=RENEW_DAYS) and self.certificate_path.exists():
                return certificate, key
        made, secret = self._issue("millwright", wanted, ExtendedKeyUsageOID.SERVER_AUTH)
        write_atomically(key, secret.decode())
        write_atomically(certificate, made.decode())
        return certificate, key

    def _issue(self, name: str, names: Sequence[str], usage: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        authority, signer = self._authority()
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, authority.subject, key.public_key(), LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
        made = builder.sign(signer, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM), _pem(key)

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        self.enrolled_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.certificate_path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Millwright plants")])
            made = (
                _builder("Millwright plants", name, key.public_key(), AUTHORITY_DAYS)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(_CA_USAGE, critical=True)
                .sign(key, hashes.SHA256())
            )
            write_atomically(self._key_path, _pem(key).decode())  # before the certificate: without its key that is worth nothing
            write_atomically(self.certificate_path, made.public_bytes(serialization.Encoding.PEM).decode())
        key_found = serialization.load_pem_private_key(self._key_path.read_bytes(), None)
        if not isinstance(key_found, ec.EllipticCurvePrivateKey):
            raise Refused(f"{self._key_path} is not the key that this hub made: put the home's secrets/plants back from its backup")
        return x509.load_pem_x509_certificate(self.certificate_path.read_bytes()), key_found


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of plants differ
        .not_valid_after(now + timedelta(days=days))
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(str(one.value) for one in found)


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
