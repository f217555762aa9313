"""The consortium's own X.509 authority and the TLS contexts made from it.

A member's TLS certificate names its key id in a URI (`urn:fogline:member:<kid>`), so that
the far end of a connection is known by the same name that signs votes. TLS keys are not
signing keys: they can be renewed without touching the ledger.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fog_node.errors import ConfigurationError, NetworkError
from fog_node.protocol.errors import FormatError
from fog_node.protocol.governance import serial_bytes
from fog_node.protocol.keys import SigningKey, kid_hex, parse_kid
from fog_node.small_files import read_small

MEMBER_URI = "urn:fogline:member:"
# What `cryptography` raises on certificates that OpenSSL may have let through.
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# Browsers and OpenSSL dislike certificates valid from this very second on skewed clocks.
BACKDATE = dt.timedelta(hours=1)
AUTHORITY_DAYS = 3650
MEMBER_DAYS = 825
SERVER_NAME = "fogline"
# X.520's bound on a common name.
MAX_NAME_CHARS = 64
# RFC 1123 section 2.1, with a `*` for the first label where a certificate is for many.
_HOST = re.compile(r"(?=.{1,253}\Z)(\*\.)?(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_REMEDY = "have the authority issue one: fogline consortium issue-certificate"


def make_authority(key: SigningKey, name: str, now: dt.datetime) -> x509.Certificate:
    """Self-signed certificate of the consortium's authority, valid for AUTHORITY_DAYS."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority"[:64])])
    private = key.private_key
    usage = x509.KeyUsage(
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
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .sign(private, hashes.SHA256())
    )


def issue(
    authority: x509.Certificate,
    authority_key: SigningKey,
    tls_key: SigningKey | ec.EllipticCurvePublicKey,
    name: str,
    now: dt.datetime,
    *,
    member: bytes | None = None,
    hosts: Sequence[str] = (),
    days: int = MEMBER_DAYS,
) -> x509.Certificate:
    """Issue a TLS certificate for client and server use.

    Args:
        authority, authority_key: the consortium's authority.
        tls_key: the holder's TLS key (never its signing key), or its public half.
        name: common name.
        now: when it becomes valid, less an hour for skewed clocks.
        member: key id of the member; None for a server that is none (the broker).
        hosts: DNS names and IP addresses that it may serve under.
        days: how long it is valid.

    Raises:
        ConfigurationError: a name or a host is none.
    """
    public_key = tls_key.private_key.public_key() if isinstance(tls_key, SigningKey) else tls_key
    names: list[x509.GeneralName] = []
    if member is not None:
        names.append(x509.UniformResourceIdentifier(MEMBER_URI + kid_hex(member)))
        names.append(x509.DNSName(SERVER_NAME))
    names.extend(map(_host, hosts))
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise ConfigurationError(f"name {name!r}: has not 1 to {MAX_NAME_CHARS} characters")
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.private_key.public_key()
            ),
            critical=False,
        )
        .sign(authority_key.private_key, hashes.SHA256())
    )


def _host(text: str) -> x509.GeneralName:
    """A name or an address under which a server is reached; raises ConfigurationError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text):
            said = f"host {text!r}: is neither a host name (a-z, 0-9, '-' and dots) nor an address"
            raise ConfigurationError(said) from None
        return x509.DNSName(text)


def check_certificate(
    path: Path, authority_der: bytes, own: bytes, now: dt.datetime
) -> x509.Certificate:
    """Read this node's certificate and check it before anything is started.

    Raises:
        ConfigurationError: unreadable, of another authority, for another member, not yet
            valid or expired; names the file and the remedy.
    """
    where = f"[peer] certificate {path}"
    certificate = check_issued(path, authority_der, now, where)
    if member_of(certificate) != own:
        raise ConfigurationError(f"{where}: is another member's; {_REMEDY}")
    return certificate


def check_issued(
    path: Path, authority_der: bytes, now: dt.datetime, where: str
) -> x509.Certificate:
    """Read a certificate that this authority must have issued and that must be valid now.

    Raises:
        ConfigurationError: it is not so; the message begins with `where`.
    """
    try:
        certificate = x509.load_pem_x509_certificate(read_small(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{where}: cannot be read ({error}); give a PEM file") from error
    authority = x509.load_der_x509_certificate(authority_der)
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{where}: is not issued by the authority in the founding file; {_REMEDY}"
        ) from error
    if now >= certificate.not_valid_after_utc:
        ended = certificate.not_valid_after_utc.isoformat()
        raise ConfigurationError(f"{where}: expired at {ended}; {_REMEDY}")
    if now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc.isoformat()
        raise ConfigurationError(
            f"{where}: is not valid before {begins}; set this machine's clock, or {_REMEDY}"
        )
    return certificate


def member_of(certificate: x509.Certificate) -> bytes | None:
    """Key id of the member that a certificate names; None where it names none one can read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    for uri in uris:
        if uri.startswith(MEMBER_URI):
            try:
                return parse_kid(uri.removeprefix(MEMBER_URI))
            except FormatError:
                return None
    return None


@dataclass(frozen=True)
class PeerCertificate:
    """What the TLS certificate at the far end of a connection says; TLS has checked its issuer.

    Attributes:
        kid: key id of the member.
        name: that it was issued to.
        serial: as a `revoke-certificate` would name it.
    """

    kid: bytes
    name: str
    serial: bytes


def name_in(path: Path) -> str | None:
    """Name that the certificate in a PEM file was issued to; None where there is none."""
    try:
        certificate = x509.load_pem_x509_certificate(read_small(path))
    except (OSError, ValueError):
        return None
    return _name_of(certificate)


def _name_of(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def peer_certificate(tls: ssl.SSLObject) -> PeerCertificate:
    """Read the certificate at the far end; raises NetworkError where it names no member."""
    der = tls.getpeercert(binary_form=True)
    try:
        certificate = x509.load_der_x509_certificate(der) if der else None
        kid = member_of(certificate) if certificate else None
    except _UNREADABLE as error:
        raise NetworkError(f"peer: its certificate cannot be read ({error})") from error
    if certificate is None or kid is None:
        raise NetworkError("peer: its certificate names no member; have the authority issue one")
    try:
        serial = serial_bytes(certificate.serial_number)
        return PeerCertificate(kid, _name_of(certificate), serial)
    except (*_UNREADABLE, OverflowError) as error:
        raise NetworkError(f"peer: its certificate cannot be read ({error})") from error


def server_context(authority_der: bytes, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 server context that demands a certificate of the consortium's authority."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, authority_der, certificate, key)
    # Nobody resumes sessions: each connection shows its certificate anew.
    context.num_tickets = 0
    return context


def client_context(
    authority_der: bytes, certificate: Path, key: Path, where: str = "[peer]"
) -> ssl.SSLContext:
    """TLS 1.3 client context; nodes serve under SERVER_NAME, whatever their address.

    `where` begins the message about files that cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, authority_der, certificate, key, where)


def _context(
    protocol: int, authority_der: bytes, certificate: Path, key: Path, where: str = "[peer]"
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority_der)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{where} certificate {certificate} with key {key}: cannot be used together "
            f"({error}); give the certificate that was issued for this key"
        ) from error
    return context
