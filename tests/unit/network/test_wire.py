"""Messages between peers: each kind comes back as it was sent, and nothing else is taken."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fog_node.network import wire
from fog_node.protocol.block import MAX_BLOCK_BYTES
from fog_node.protocol.cbor import encode
from fog_node.protocol.errors import EncodingError, FormatError, ProtocolError
from fog_node.protocol.sealed_header import MAX_SEALED_HEADER_BYTES
from fog_node.protocol.transactions import MAX_TRANSACTION_BYTES
from fog_node.protocol.votes import MAX_CERTIFICATE_BYTES, MAX_VALIDATORS, MAX_VOTE_BYTES

HASH = bytes(range(32))
VOTES = [[7, 0, [HASH], []], [6, 3, [], [HASH, HASH]]]
EXAMPLES = {
    example.KIND: example
    for example in (
        wire.Hello(1, HASH, "seoul"),
        wire.Status(7, HASH, 2, -1, True, VOTES, [HASH]),
        wire.Transactions([b"one", b"two"]),
        wire.Proposal(b"header", b"block", [b"vote"]),
        wire.Votes([b"vote", b"another"]),
        wire.Candidate(b"block"),
        wire.GetBlocks(1),
        wire.GetHeaders(1),
        wire.Headers(3, [b"sealed header"]),
        wire.Blocks(3, [[b"block", b"certificate"], [b"next", b"its own"]]),
        wire.GetBlob(HASH, 65536),
        wire.Blob(HASH, 0, 5, b"bytes"),
    )
}
KINDS = get_args(wire.Message)


def body(message: wire.Message) -> bytes:
    """The frame without its length, which must be right."""
    frame = wire.encode_message(message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_each_kind_has_an_example_here_that_comes_back_as_it_was_sent(kind) -> None:
    example = EXAMPLES[kind.KIND]
    assert type(example) is kind
    assert wire.parse_message(body(example)) == example


def test_the_largest_block_with_its_certificate_fits_a_frame() -> None:
    block, certificate = bytes(MAX_BLOCK_BYTES), bytes(MAX_CERTIFICATE_BYTES)
    votes = [bytes(MAX_VOTE_BYTES)] * MAX_VALIDATORS
    largest = [
        wire.Blocks(2**63 - 1, [[block, certificate]]),
        wire.Blob(HASH, 2**63 - 1, 2**63 - 1, bytes(wire.BLOB_CHUNK_BYTES)),
        wire.Votes([bytes(MAX_VOTE_BYTES)] * wire.MAX_VOTES),
    ]
    for message in largest:
        assert wire.parse_message(body(message)) == message
    proposal = wire.Proposal(bytes(MAX_VOTE_BYTES), block, votes)
    assert wire.parse_message(body(proposal)) == proposal


REFUSED = {
    "a name that is none": (["what", 1], "is not a message name"),
    "no name": ([], "that begins with a message name"),
    "a number for a name": ([1, 2], "that begins with a message name"),
    "no array": ({"hello": 1}, "that begins with a message name"),
    "a name alone": ("hello", "that begins with a message name"),
    "a long name": (["x" * 5000], "'x{40}' is not a message name"),
}


@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_message_is_refused(value, why) -> None:
    with pytest.raises(FormatError, match=why):
        wire.parse_message(encode(value))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_item_too_few_or_too_many_is_refused(example) -> None:
    items = [getattr(example, f.name) for f in fields(example)]
    for wrong in (items[:-1], [*items, 0]):
        with pytest.raises(FormatError, match=rf"{example.KIND}: has {len(wrong)} items"):
            wire.parse_message(encode([example.KIND, *wrong]))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_item_of_another_type_is_refused_by_its_field(example) -> None:
    items = [getattr(example, f.name) for f in fields(example)]
    for index in range(len(items)):
        for wrong in (None, 1.5, {}):
            changed = [*items[:index], wrong, *items[index + 1 :]]
            with pytest.raises(FormatError) as refused:
                wire.parse_message(encode([example.KIND, *changed]))
            assert refused.value.field.startswith(example.KIND)


HELLO, STATUS = EXAMPLES["hello"], EXAMPLES["status"]
BLOB, BLOCKS = EXAMPLES["blob"], EXAMPLES["blocks"]
OUT_OF_RANGE = [
    (replace(HELLO, version=2**16 + 1), "hello.version"),
    (replace(HELLO, version=-1), "hello.version"),
    (replace(HELLO, chain_id=HASH[:31]), "hello.chain_id"),
    (replace(HELLO, name="x" * 65), "hello.name"),
    (replace(HELLO, name=""), "hello.name"),
    (replace(HELLO, name="two\nlines"), "hello.name"),
    (replace(STATUS, height=0), "status.height"),
    (replace(STATUS, height=True), "status.height"),
    (replace(STATUS, parent=HASH + b"x"), "status.parent"),
    (replace(STATUS, pol_round=-2), "status.pol_round"),
    (replace(STATUS, has_proposal=1), "status.has_proposal"),
    (replace(STATUS, votes=[VOTES[0]] * (wire.MAX_STATUS_ROUNDS + 1)), "status.votes"),
    (replace(STATUS, votes=[[7, 0, [HASH]]]), "status.votes"),
    (replace(STATUS, votes=[[-1, 0, [], []]]), "status.votes.height"),
    (replace(STATUS, votes=[[7, -1, [], []]]), "status.votes.round"),
    (replace(STATUS, votes=[[7, 0, [HASH] * (MAX_VALIDATORS + 1), []]]), "status.votes.tags"),
    (replace(STATUS, votes=[[7, 0, [HASH + b"x"], []]]), "status.votes.tags"),
    (replace(STATUS, votes=[[7, 0, [], [1]]]), "status.votes.tags"),
    (replace(STATUS, wanted=[HASH] * (wire.MAX_WANTED + 1)), "status.wanted"),
    (wire.Transactions([b""] * (wire.MAX_TRANSACTIONS + 1)), "transactions"),
    (wire.Transactions([bytes(MAX_TRANSACTION_BYTES + 1)]), "transactions"),
    (wire.Transactions(["text"]), "transactions"),
    (wire.Proposal(bytes(MAX_VOTE_BYTES + 1), b"", []), "proposal.header"),
    (wire.Proposal(b"", bytes(MAX_BLOCK_BYTES + 1), []), "proposal.block"),
    (wire.Proposal(b"", b"", [b""] * (MAX_VALIDATORS + 1)), "proposal.prevotes"),
    (wire.Votes([b""] * (wire.MAX_VOTES + 1)), "votes"),
    (wire.Votes([bytes(MAX_VOTE_BYTES + 1)]), "votes"),
    (wire.Candidate(bytes(MAX_BLOCK_BYTES + 1)), "candidate.block"),
    (wire.GetBlocks(0), "get-blocks.first"),
    (wire.GetBlocks(2**63), "get-blocks.first"),
    (wire.GetBlocks(1, 0), "get-blocks.count"),
    (wire.GetBlocks(1, wire.MAX_BLOCKS + 1), "get-blocks.count"),
    (wire.GetHeaders(0), "get-headers.first"),
    (wire.Headers(0, []), "headers.first"),
    (wire.Headers(1, [b""] * (wire.MAX_HEADERS + 1)), "headers"),
    (wire.Headers(1, [bytes(MAX_SEALED_HEADER_BYTES + 1)]), "headers"),
    (replace(BLOCKS, lowest=0), "blocks.lowest"),
    (replace(BLOCKS, first=0), "blocks.first"),
    (replace(BLOCKS, blocks=[[b"", b""]] * (wire.MAX_BLOCKS + 1)), "blocks"),
    (replace(BLOCKS, blocks=[[b"block"]]), "blocks"),
    (replace(BLOCKS, blocks=[[bytes(MAX_BLOCK_BYTES + 1), b""]]), "blocks.block"),
    (replace(BLOCKS, blocks=[[b"", bytes(MAX_CERTIFICATE_BYTES + 1)]]), "blocks.certificate"),
    (wire.GetBlob(b"short", 0), "get-blob.sha256"),
    (wire.GetBlob(HASH, -1), "get-blob.offset"),
    (replace(BLOB, data=bytes(wire.BLOB_CHUNK_BYTES + 1)), "blob.data"),
    (replace(BLOB, total=-1), "blob.total"),
]


@pytest.mark.parametrize(
    ("message", "field"), OUT_OF_RANGE, ids=[f"{i}-{row[1]}" for i, row in enumerate(OUT_OF_RANGE)]
)
def test_what_is_out_of_range_is_refused_by_its_field(message, field) -> None:
    with pytest.raises(FormatError) as refused:
        wire.parse_message(body(message))
    assert refused.value.field == field


def test_a_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(EncodingError):
        wire.parse_message(bytes(wire.MAX_FRAME_BYTES + 1))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_garbage_is_refused(data) -> None:
    with pytest.raises(ProtocolError):
        wire.parse_message(data)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=40),
    st.text(max_size=5),
)  # fmt: skip
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@settings(max_examples=200)
@given(st.sampled_from(sorted(EXAMPLES)), st.lists(nested, max_size=8))
def test_any_items_behind_a_name_are_a_message_or_refused(kind, items) -> None:
    data = encode([kind, *items])
    try:
        message = wire.parse_message(data)
    except ProtocolError:
        return
    assert body(message) == data


@settings(max_examples=200)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_message_with_changed_bytes_is_a_message_or_refused(kind, data) -> None:
    changed = bytearray(body(EXAMPLES[kind]))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = wire.parse_message(bytes(changed))
    except ProtocolError:
        return
    assert body(message) == bytes(changed)
