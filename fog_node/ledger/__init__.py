"""The ledger: agreement, state, validation, mempool and store."""

from .chain import BlockInfo
from .ledger import Admission, Committed, Ledger, Snapshot
from .mempool import Limits
from .records import Device, MemberRecord, ReleaseRecord
from .state import State
from .store import Fork, Place
from .validation import MAX_FUTURE_MS, MAX_SEQUENCE_AHEAD, check_proposal

__all__ = [
    "MAX_FUTURE_MS",
    "MAX_SEQUENCE_AHEAD",
    "Admission",
    "BlockInfo",
    "Committed",
    "Device",
    "Fork",
    "Ledger",
    "Limits",
    "MemberRecord",
    "Place",
    "ReleaseRecord",
    "Snapshot",
    "State",
    "check_proposal",
]
