"""Errors of the board. Codes are short and stable: consoles, tests and people match on them.

FoglineError                anything the firmware refuses or cannot do
├── EncodingError           cbor.*     bytes that are not deterministic CBOR within the limits
├── CryptoError             p256.*, cose.*   a bad key or point, a signature or MAC that fails
│   ├── KeyStoreError       key.*      no usable key in flash, or none could be made
│   └── SelfTestError       selftest.* the board must not sign
├── PackError               pack.*     a row or verdict that no pack can hold
├── OutboxError             outbox.*   the flash refused, or the caller broke the order
│   └── OutboxFull          outbox.full   wait for a receipt, then try again
├── RevokedError            board.revoked   the ledger does not know this key any more
├── ConfigError             config.*   board.json
├── LinkError               link.*     MQTT or serial
├── ModelError              model.*    a .tflite file or its use
├── UpdateError             update.*   a release that must not be installed
└── DriverError             driver.*   what reads the sensors
    └── SensorFault         sensor.*   one sensor gives nothing now; the others go on
"""


class FoglineError(Exception):
    """Base of all errors of the board.

    Attributes:
        code: what happened, as `part.reason`, for instance `cbor.depth`.
        detail: a few words more; never key material, never a message's content.
    """

    def __init__(self, code, detail=""):
        super().__init__(code + ": " + detail if detail else code)
        self.code = code
        self.detail = detail


class EncodingError(FoglineError):
    """The bytes are not deterministic CBOR, or over a limit."""


class CryptoError(FoglineError):
    """A key, point, signature or MAC is not good."""


class KeyStoreError(CryptoError):
    """The key file cannot be used, or no key could be made."""


class SelfTestError(CryptoError):
    """A self-test failed: nothing may be signed until the board was repaired."""


class PackError(FoglineError):
    """A row or verdict does not fit a pack."""


class OutboxError(FoglineError):
    """The outbox could not be read or written, or was used out of order."""


class OutboxFull(OutboxError):  # noqa: N818 - a state to wait out, not a fault
    """No room until a receipt lets old transactions go."""


class RevokedError(FoglineError):
    """Every gateway says that the key was revoked: nothing signed with it counts."""


class ConfigError(FoglineError):
    """A setting in board.json is missing, unknown or out of range."""


class LinkError(FoglineError):
    """The connection to the gateway failed or spoke out of turn."""


class ModelError(FoglineError):
    """A model cannot be loaded or run here."""


class UpdateError(FoglineError):
    """A release is not for this board, not signed, damaged or fails its self-test."""


class DriverError(FoglineError):
    """A sensor cannot be read or was configured wrongly."""


class SensorFault(DriverError):  # noqa: N818 - what a pack calls it
    """A sensor gives nothing.

    Attributes:
        fault: the pack's word for it: absent, timeout, crc, bus, range, wire, no-data.
        reopen: whether the sensor has to be set up again before it is asked again.
    """

    def __init__(self, fault, detail="", reopen=True):
        super().__init__("sensor." + fault, detail)
        self.fault = fault
        self.reopen = reopen


class RestartNeeded(Exception):  # noqa: N818 - no fault: what comes next needs an empty heap
    """The board has to start anew, by which nothing is lost. No FoglineError: nobody handles it."""
