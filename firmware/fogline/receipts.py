"""Receipts: a gateway's word, under an agreed key, up to where our transactions are final."""

from . import cose


class Receipts:
    """Opens the receipts of every gateway in the configuration."""

    def __init__(self, key, chain_id, gateways):
        """Take the board's key and the gateways' (name, xy)."""
        self._key = key
        self._chain_id = chain_id
        self._gateways = {gateway.name: gateway for gateway in gateways}
        self._agreed = {}  # name: (kid, MAC key); agreeing costs as much as five signatures

    def open(self, name, data):
        """Return the `cose.Receipt` that the gateway `name` wrote for us.

        Raises EncodingError or CryptoError for what that gateway did not write for us.
        """
        if name not in self._agreed:
            public = self._gateways[name].xy
            mac_key = cose.receipt_key(self._key, public, self._chain_id)
            self._agreed[name] = (cose.key_id(public), mac_key)
        kid, mac_key = self._agreed[name]
        return cose.open_receipt(data, mac_key, kid, self._key.kid, self._chain_id)
