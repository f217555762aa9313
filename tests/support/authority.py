"""A certificate authority for brokers in tests."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SERVER_NAME = "broker.fogline.test"


class Authority:
    """A certificate authority and one broker certificate under it, in files."""

    def __init__(self, directory, valid_days=1):
        directory.mkdir(exist_ok=True)
        key, certificate = self._make("ca", None, 1)
        self.ca_pem = directory / "ca.pem"
        self.ca_der = directory / "ca.der"
        self.ca_pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.ca_der.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
        own_key, own = self._make(SERVER_NAME, (key, certificate), valid_days)
        self.pem = directory / "broker.pem"
        self.key = directory / "broker.key"
        self.pem.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            own_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    @staticmethod
    def _make(name, issuer, valid_days):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[1].subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=valid_days))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
        )
        if issuer:
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            builder = builder.add_extension(names, False)
        return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())
