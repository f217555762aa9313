"""The consortium of a run: founding file, keys, and what clients have to seal."""

from __future__ import annotations

from functools import cache

from fog_node.protocol import senml
from fog_node.protocol.cose import Sign1, parse_sign1
from fog_node.protocol.founding import Founding, Member, Parameters
from fog_node.protocol.governance import (
    MAX_KEY_PROOF_BYTES,
    AddMember,
    Change,
    RemoveMember,
    RotateKey,
    SetParameters,
    SetRoles,
    prove_key,
)
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import (
    Body,
    Channel,
    Enrol,
    PackBody,
    Transaction,
    sign_transaction,
)

from .decisions import Decision
from .script import Script

START_MS = 1_700_000_000_000
# Half of all hashes meet it: mining is a matter of simulated time.
BITS = 0x207FFFFF
BOARDS = 3
MAX_BLOCK_TRANSACTIONS = 8
_DEVICE_TYPE = "simulated"
_CHANNELS = (Channel("pressure", "bar", -1.0, 10.0),)
_FIRST_VALIDATOR, _OPERATOR, _FIRST_BOARD, _FIRST_NEW_KEY = 1_000, 2_000, 3_000, 4_000
_GATEWAY = frozenset({"gateway"})
_VALIDATOR = frozenset({"validator", "gateway"})


@cache
def _key(secret: int) -> SigningKey:
    return SigningKey.from_secret(secret)


class Consortium:
    """Who takes part in one run.

    Attributes:
        keys: of the nodes in order, when they start: the validators, then the observer if
            there is one.
        new_keys: of the nodes in order, should they have to change theirs.
        names: of all these.
    """

    def __init__(self, script: Script) -> None:
        """Found it as the script says."""
        scenario = script.scenario
        names = [f"v{i}" for i in range(scenario.validators)]
        if scenario.observer:
            names.append("observer")
        self.keys = [_key(_FIRST_VALIDATOR + i) for i in range(scenario.nodes)]
        self.new_keys = [_key(_FIRST_NEW_KEY + i) for i in range(scenario.nodes)]
        self.operator = _key(_OPERATOR)
        self.boards = [_key(_FIRST_BOARD + i) for i in range(BOARDS)]
        members = [
            Member(name, key.public, _VALIDATOR if i < scenario.validators else _GATEWAY)
            for i, (name, key) in enumerate(zip(names, self.keys, strict=True))
        ]
        if any(decision.kind == "add member" for decision in script.decisions):
            members.pop()  # the observer is nobody yet
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
                rest_ms=script.rest_ms,
                stagger_ms=scenario.timing.stagger_ms,
                mining_diversity=min(1000, -(-scenario.spacing * 1000 // scenario.quorum)),
                max_block_transactions=MAX_BLOCK_TRANSACTIONS,
            ),
            b"",
            tuple(members),
        )
        self.names = {key.kid: name for name, key in zip(names, self.keys, strict=True)}
        self.names.update((key.kid, f"{names[i]} anew") for i, key in enumerate(self.new_keys))
        self._signing = {key.kid: key for key in (*self.keys, *self.new_keys)}

    def key_of(self, kid: bytes) -> SigningKey:
        """Return the key that a node's member signs with under this id."""
        return self._signing[kid]

    def place_of(self, kid: bytes) -> int:
        """Return which node has, had or may have this key."""
        found = next(keys for keys in (self.keys, self.new_keys) if self._signing[kid] in keys)
        return found.index(self._signing[kid])

    def change(self, decision: Decision, kid: bytes) -> Change:
        """Return the change that a decision is about.

        Args:
            decision: on what.
            kid: the present key id of the node's member.
        """
        place = decision.node
        match decision.kind:
            case "add member":
                key, name = self.keys[place], self.names[self.keys[place].kid]
                return AddMember(name, key.public, _VALIDATOR, self._proof(key, name))
            case "rotate key":
                key, name = self.new_keys[place], self.names[self.keys[place].kid]
                return RotateKey(kid, key.public, name, self._proof(key, name))
            case "add role":
                return SetRoles(kid, _VALIDATOR)
            case "remove role":
                return SetRoles(kid, _GATEWAY)
            case "remove member":
                return RemoveMember(kid)
            case "rule":
                return SetParameters((), decision.rule)
            case _:
                return SetParameters((("rest_ms", decision.rest_ms),))

    def _proof(self, key: SigningKey, name: str) -> Sign1:
        proof = prove_key(key, name, self.founding.chain_id)
        return parse_sign1(proof, MAX_KEY_PROOF_BYTES, "proof")

    def sign(self, key: SigningKey, body: Body, number: int) -> Transaction:
        """Sign as a member's transaction `number`."""
        return self._sign(key, body, number, None)

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
