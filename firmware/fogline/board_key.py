"""A board's identity: what it signs with, and what it is known by."""

from . import cose, p256


class BoardKey:
    """The board's identity.

    Attributes:
        public: x || y, 64 bytes.
        kid: key id, 8 bytes.
        new: whether the key was made by this start.
    """

    def __init__(self, secret, new):
        self._secret = secret
        self.public = p256.public_key(secret)
        self.kid = cose.key_id(self.public)
        self.new = new

    def sign(self, digest):
        """Return the ES256 signature (r || s, low-S) over a SHA-256 digest."""
        return p256.sign(self._secret, digest)

    def agree(self, public):
        """Return the ECDH x coordinate with another key's x || y; raises CryptoError."""
        return p256.ecdh(self._secret, public)
