"""The ledger: agreement, state, validation, mempool and store."""

from fog_node.protocol.member_records import MemberRecord

from .chain import BlockInfo
from .ledger import Admission, Committed, Ledger, Snapshot
from .mempool import Limits
from .records import Device, ReleaseRecord
from .rollout_records import BoardRecord, Offered, OfferRecord
from .rollouts import age
from .state import State
from .store import Fork, Place
from .validation import MAX_FUTURE_MS, MAX_SEQUENCE_AHEAD, check_proposal

__all__ = [
    "MAX_FUTURE_MS",
    "MAX_SEQUENCE_AHEAD",
    "Admission",
    "BlockInfo",
    "BoardRecord",
    "Committed",
    "Device",
    "Fork",
    "Ledger",
    "Limits",
    "MemberRecord",
    "OfferRecord",
    "Offered",
    "Place",
    "ReleaseRecord",
    "Snapshot",
    "State",
    "age",
    "check_proposal",
]
