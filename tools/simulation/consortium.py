"""The consortium of a run: founding file, keys, and what clients have to seal."""

from __future__ import annotations

from functools import cache

from fog_node.ledger.simulator import Scenario
from fog_node.protocol import senml
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import (
    Body,
    Channel,
    Enrol,
    PackBody,
    Transaction,
    sign_transaction,
)

START_MS = 1_700_000_000_000
# Half of all hashes meet it: mining is a matter of simulated time.
BITS = 0x207FFFFF
BOARDS = 3
MAX_BLOCK_TRANSACTIONS = 8
_DEVICE_TYPE = "simulated"
_CHANNELS = (Channel("pressure", "bar", -1.0, 10.0),)
_FIRST_VALIDATOR, _OPERATOR, _FIRST_BOARD = 1_000, 2_000, 3_000


@cache
def _key(secret: int) -> SigningKey:
    return SigningKey.from_secret(secret)


class Consortium:
    """Who takes part in one run.

    Attributes:
        keys: of the nodes in order: the validators, then the observer if there is one.
    """

    def __init__(self, scenario: Scenario, rest_ms: int) -> None:
        """Found it as the scenario says."""
        names = [f"v{i}" for i in range(scenario.validators)]
        self.keys = [_key(_FIRST_VALIDATOR + i) for i in range(scenario.nodes)]
        self.operator = _key(_OPERATOR)
        self.boards = [_key(_FIRST_BOARD + i) for i in range(BOARDS)]
        roles = frozenset({"validator", "gateway"})
        members = [
            Member(name, key.public, roles) for name, key in zip(names, self.keys, strict=False)
        ]
        if scenario.observer:
            members.append(Member("observer", self.keys[-1].public, frozenset({"gateway"})))
        members.append(Member("operator", self.operator.public, frozenset({"operator"})))
        self.founding = Founding(
            "simulated",
            START_MS,
            scenario.rule,
            Parameters(
                block_interval_ms=400,
                heartbeat_ms=0,
                bits=BITS,
                retarget_blocks=0,
                rest_ms=rest_ms,
                stagger_ms=scenario.timing.stagger_ms,
                mining_diversity=min(1000, -(-scenario.spacing * 1000 // scenario.quorum)),
                max_block_transactions=MAX_BLOCK_TRANSACTIONS,
            ),
            b"",
            tuple(members),
        )
        self.names = {member.kid: member.name for member in members}

    def enrolment(self, board: SigningKey, number: int) -> Transaction:
        """Make the operator's transaction `number`: it puts a board on the chain."""
        body = Enrol(board.public, "operator", _DEVICE_TYPE, "unix", _CHANNELS, START_MS)
        return self._sign(self.operator, body, number, None)

    def pack(self, board: SigningKey, number: int) -> Transaction:
        """Make a board's pack `number`."""
        enterprise = self.founding.parameters.enterprise_number
        readings = [(0, [("pressure", "bar", 1.5)])]
        payload = senml.encode_pack(enterprise, board.kid, START_MS // 1000 + number, readings)
        return self._sign(board, PackBody.decode(payload), number, 0)

    def late_board(self) -> SigningKey:
        """Return a board that nobody has met before."""
        return _key(_FIRST_BOARD + BOARDS)

    def _sign(self, key: SigningKey, body: Body, number: int, dropped: int | None) -> Transaction:
        return sign_transaction(key, body, self.founding.chain_id, number, dropped)
