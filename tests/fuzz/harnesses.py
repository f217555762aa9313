"""One harness per parser that faces outside: what it takes, refuses, and must never do.

For any bytes a parser either raises one of its package's own errors or takes them. What it takes
encodes again to the same bytes, so that no two encodings mean the same; and where it is signed,
what verifies is a message that was really signed: the fuzzer holds no key.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import re
import shutil
import tempfile
import urllib.parse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from support.small_chain import SmallChain

from cloud.errors import CloudError
from cloud.label_files import bodies, read_labels
from cloud.recording import CHANNEL_COLUMNS, read_csv
from fog_node import config
from fog_node.api.app import create_app
from fog_node.api.feed import BlockFeed
from fog_node.api.services import Condition, Services
from fog_node.blobs import BlobStore
from fog_node.errors import ConfigurationError, NetworkError
from fog_node.gateway.admission import Admission, Message
from fog_node.gateway.statuses import parse_status
from fog_node.gateway.topics import Topics
from fog_node.network import certificates, wire
from fog_node.payloads import PayloadStore
from fog_node.protocol import cbor, cose
from fog_node.protocol.block import Block, parse_block, parse_coinbase
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding, parse_founding
from fog_node.protocol.keys import PublicKey, SigningKey
from fog_node.protocol.labels import Label
from fog_node.protocol.manifest import Bundle, Manifest, encode_bundle, parse_bundle
from fog_node.protocol.proof import parse_proof
from fog_node.protocol.receipt import decode_receipt
from fog_node.protocol.sealed_header import SealedHeader
from fog_node.protocol.senml import decode_pack
from fog_node.protocol.transactions import (
    KINDS,
    MAX_TRANSACTION_BYTES,
    Body,
    Transaction,
    parse_transaction,
    read_pack,
)
from fog_node.protocol.validators import ValidatorSet
from fog_node.protocol.votes import (
    parse_certificate,
    parse_proposal,
    parse_vote,
    verify_proposal,
    verify_vote,
)
from tools.errors import ToolError
from tools.membership_request import load_request, make_request

VECTORS = Path(__file__).parents[1] / "vectors"
MAX_BYTES = 64 * 1024
# Tokens and request targets of RFC 9110 and RFC 9112, as h11 takes them.
_METHOD = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"/[\x21-\x7e]*")


class FindingError(AssertionError):
    """A parser did what it must not."""


@dataclass(frozen=True)
class Harness:
    """One parser.

    Attributes:
        name: for `--only` and reports.
        seeds: valid messages, which it takes.
        parse: takes bytes; what it raises must be one of `errors`.
        encode: gives the bytes of what was taken; None where they are not kept (text formats).
        verify: raises one of `errors` unless the signatures in it hold; None where it has none.
        others: what to splice from, beside the seeds.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    parse: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...] = (ProtocolError,)
    encode: Callable[[Any], bytes] | None = None
    verify: Callable[[Any], None] | None = None

    @cached_property
    def corpus(self) -> tuple[bytes, ...]:
        """The seeds, made once."""
        return tuple(self.seeds())

    def check(self, data: bytes) -> bool:
        """Feed bytes to the parser; returns whether it took them. Raises FindingError."""
        try:
            value = self.parse(data)
        except self.errors:
            return False
        except Exception as error:
            raise FindingError(f"{self.name}: {data.hex()}: raises {error!r}") from error
        if self.encode is not None and (again := self.encode(value)) != data:
            raise FindingError(f"{self.name}: {data.hex()}: encodes again to {again.hex()}")
        if self.verify is not None and data not in self.corpus:
            try:
                self.verify(value)
            except self.errors:
                return True
            raise FindingError(f"{self.name}: {data.hex()}: verifies, and was never signed")
        return True


# What the seeds are made from


@cache
def messages() -> dict[str, Any]:
    return json.loads((VECTORS / "messages.json").read_text())


def vector(*path: str) -> bytes:
    value: Any = messages()
    for step in path:
        value = value[step]
    return bytes.fromhex(value)


@cache
def founding() -> Founding:
    return parse_founding(vector("founding"))


@cache
def keys() -> dict[bytes, PublicKey]:
    found = [PublicKey(bytes.fromhex(key["xy"])) for key in messages()["keys"].values()]
    return {key.kid: key for key in found}


def key_of(kid: bytes) -> PublicKey:
    if kid not in keys():
        raise ProtocolError("kid", "is nobody's")
    return keys()[kid]


def transactions() -> list[bytes]:
    return [vector("transactions", kind, "bytes") for kind in KINDS]


def packs() -> list[bytes]:
    boards = json.loads((VECTORS / "board_packs.json").read_text())
    return [bytes.fromhex(pack["payload"]) for pack in boards["packs"]]


# What several harnesses share


def signed(value: cose.Sign1) -> bytes:
    parts = [value.protected, {}, value.payload, value.signature]
    return cbor.encode(cbor2.CBORTag(cose.TAG_SIGN1, parts))


def encode_transaction(value: Transaction) -> bytes:
    if value.raw != signed(value.message):
        raise FindingError("transaction: raw is not what was parsed")
    again = type(value.body).decode(value.body.encode())
    # repr: a NaN is not itself, and a number may be written as an integer and read as a float.
    if repr(again) != repr(value.body):
        raise FindingError(
            f"{value.kind}: changes when it is written and read: {again} {value.body}"
        )
    return value.raw


def encode_body(value: Body) -> bytes:
    again = type(value).decode(value.encode())
    if repr(again) != repr(value):
        raise FindingError(f"{value.kind}: changes when it is written and read: {again} {value}")
    return value.encode()


def verify_transaction(value: Transaction) -> None:
    value.verify(key_of(value.signer), founding().chain_id)


def parse_any_pack(data: bytes) -> Transaction:
    """A pack by the parser in C where it takes it, and by the general one: they must agree."""
    quick = read_pack(data)
    try:
        slow = parse_transaction(data)
    except ProtocolError:
        if quick is not None:
            raise FindingError(f"pack: {data.hex()}: is taken by the quick parser alone") from None
        raise
    if quick is not None and quick != slow:
        raise FindingError(f"pack: {data.hex()}: the two parsers differ")
    return slow


def encode_block(value: Block) -> bytes:
    return Block(value.header, value.coinbase, value.transactions).raw


def verify_block(value: Block) -> None:
    for transaction in value.transactions:
        verify_transaction(transaction)
    value.coinbase.message.verify(key_of(value.coinbase.miner), founding().chain_id)
    value.header.check_work()
    certificate = parse_certificate(vector("certificate"))
    if certificate.block_hash != value.hash:
        raise ProtocolError("certificate", "is for another block")


def verify_bundle(value: Bundle) -> None:
    value.verify(list(keys().values()), founding().chain_id)


def receipt_of(data: bytes) -> Any:
    return decode_receipt(data, vector("receipt", "key"), founding().chain_id)


def taken_receipt(_: Any) -> None:
    """It was authenticated when it was read."""


# Wire


def wire_seeds() -> list[bytes]:
    h = bytes(range(32))
    vote, block = vector("vote"), vector("block", "bytes")
    examples: list[wire.Message] = [
        wire.Hello(1, h, "seoul"),
        wire.Status(7, h, 2, -1, True, [[7, 0, [h], []], [6, 3, [], [h, h]]], [h]),
        wire.Transactions(transactions()),
        wire.Proposal(vector("proposal"), block, [vote]),
        wire.Votes([vote]),
        wire.Candidate(block),
        wire.GetBlocks(1),
        wire.Blocks(1, [[block, vector("certificate")]]),
        wire.GetBlob(h, 65536),
        wire.Blob(h, 0, 5, b"bytes"),
    ]
    return [wire.encode_message(message)[wire.LENGTH.size :] for message in examples]


def encode_wire(value: wire.Message) -> bytes:
    return wire.encode_message(value)[wire.LENGTH.size :]


# Files


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="fogline-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def from_file(read: Callable[[Path], Any], name: str) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        path = folder() / name
        path.write_bytes(data)
        return read(path)

    return parse


def config_seeds() -> list[bytes]:
    here = Path("keys")
    peers = {"peer": {"peers": {"busan": "192.0.2.1:7420", "six": "[2001:db8::1]:7420"}}}
    return [
        config.sample("seoul", Path("founding.cbor"), here, overrides).encode()
        for overrides in (None, peers)
    ]


def request_seeds() -> list[bytes]:
    path = make_request(founding(), "jeju", folder() / "request", ("192.0.2.1", "jeju.example"))
    return [path.read_bytes()]


def csv_seeds() -> list[bytes]:
    header = ";".join(["datetime", *CHANNEL_COLUMNS.values(), "anomaly", "changepoint"])
    rows = "\n".join(
        f"2020-03-09 10:14:{second:02};0.02;0.04;1.3;0.05;79.1;26.3;233.1;32.0;0.0;0.0"
        for second in range(5)
    )
    return [f"{header}\n{rows}\n".encode(), f"\ufeff{header}\r\n{rows}".encode()]


def label_seeds() -> list[bytes]:
    kid, header = BOARD.kid.hex(), "device,from,until,first,last,image,value,why"
    rows = [
        f"{kid},2026-01-01T00:00:00Z,1767225601.5,,,,anomaly,",
        f'{kid},,,1,2,,valve closed,"as the log, says"',
        f",,,,,{'ab' * 32},-,",
        f"{kid},1,2,,,,,",
    ]
    return ["\n".join([header, *rows]).encode()]


def read_label_file(path: Path) -> Any:
    listed = read_labels(path)
    for body in bodies(listed, "", 0):
        Label.decode(body.encode())
    return listed


# Certificates


@dataclass(frozen=True)
class Shown:
    """What ssl gives for the other side's certificate."""

    der: bytes

    def getpeercert(self, *, binary_form: bool) -> bytes:
        assert binary_form
        return self.der


def certificate_seeds() -> list[bytes]:
    import datetime as dt

    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    key = SigningKey.from_secret(77)
    authority = certificates.make_authority(key, "test", now)
    issued = certificates.issue(
        authority, key, SigningKey.from_secret(78), "busan", now,
        member=SigningKey.from_secret(79).kid, hosts=("192.0.2.1", "busan.example"),
    )  # fmt: skip
    from cryptography.hazmat.primitives.serialization import Encoding

    return [issued.public_bytes(Encoding.DER)]


def shown_member(data: bytes) -> object:
    with warnings.catch_warnings():  # of numbers that a later release will refuse
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return certificates.peer_certificate(Shown(data))  # type: ignore[arg-type]


# A gateway and an API over a small chain


@cache
def chain() -> SmallChain:
    der = certificate_seeds()[0]
    x509.load_der_x509_certificate(der)
    made = SmallChain(folder() / "chain", der)
    made.enrol(BOARD)
    made.seal(made.pack(BOARD, 1))
    return made


BOARD = SigningKey.from_secret(4000)


@cache
def admission() -> Admission:
    return Admission(chain().ledger)


def admission_seeds() -> list[bytes]:
    small = chain()
    return [small.pack(BOARD, n, rows=3).raw for n in (1, 2, 3)] + [small.alert(BOARD, 2).raw]


def admit(data: bytes) -> None:
    """As if it had come under the board's topic."""
    (outcome,) = admission().process([Message(data, BOARD.kid, False)])
    if outcome.kind == "admitted" and data not in admission_seeds():
        raise FindingError(f"admission: {data.hex()}: is admitted, and was never signed")


def statuses() -> list[bytes]:
    """What boards say of themselves, with and without an update that they did not keep."""
    said = {"state": "online", "next": 7, "model": bytes(8), "firmware": "1.0", "nonce": bytes(8)}
    update = [bytes(8), "rejected", "update.selftest: vector 0"]
    offline = said | {"state": "offline", "nonce": None}
    return [cbor.encode(one) for one in (said, said | {"update": update}, offline)]


def read_topic(data: bytes) -> None:
    parsed = Topics("seoul").parse(data.decode("utf-8", "replace"))
    if parsed is not None:
        kind, board = parsed
        rebuilt = f"fogline/seoul/{kind}/{board.hex() if board else ''}"
        if board is not None and rebuilt.encode() != data:
            raise FindingError(f"topic: {data!r}: is read as {rebuilt}")


@cache
def app() -> Any:
    small = chain()

    async def submit(transaction: Transaction) -> Any:
        (result,) = small.ledger.admit([transaction])
        return result

    return create_app(
        Services(
            member="seoul",
            version="1",
            ledger=small.ledger,
            blobs=BlobStore(folder() / "blobs", 2**24),
            payloads=PayloadStore(folder() / "payloads", 2**20, 2**20),
            feed=BlockFeed(small.ledger.height),
            submit=submit,
            stored=lambda: None,
            want=lambda payload: None,
            condition=lambda: Condition(0),
        )
    )


def http_seeds() -> list[bytes]:
    small = chain()
    place = small.ledger.list_signer(BOARD.kid)[0]
    kid, found = BOARD.kid.hex(), place.id.hex()
    asked = [
        "GET /v1/status", "GET /v1/blocks?from=1&limit=2", "GET /v1/blocks/1",
        "GET /v1/blocks/1/raw", f"GET /v1/transactions/{found}",
        f"GET /v1/transactions/{found}/raw", f"GET /v1/transactions?signer={kid}&limit=3",
        "GET /v1/transactions?kind=enrol&before=1.1",
        "GET /v1/devices?limit=2", f"GET /v1/devices/{kid}", "GET /v1/members",
        "GET /v1/releases",
        f"GET /v1/proofs/{found}", f"GET /v1/blobs/{bytes(32).hex()}", "GET /v1/headers?from=1",
        f"GET /v1/devices/{kid}/proof?first=1&last=1", "GET /openapi.json", "GET /docs",
    ]  # fmt: skip
    seeds = [f"{line}\nrange: bytes=0-3\n\n".encode() for line in asked]
    head = b"POST /v1/transactions\ncontent-type: application/cose\n\n"
    return [*seeds, head + small.pack(BOARD, 2).raw, head + small.incident().raw]


def request(data: bytes) -> None:
    """Ask the API: a line with method and target, header lines, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.decode("latin-1").partition(" ")
    # h11 has refused everything else before the API gets to see it.
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
        return
    path, _, query = target.partition("?")
    # These never end; how they begin is tested elsewhere.
    if path.rstrip("/") in ("/v1/stream", "/v1/events"):
        return
    headers = [
        (name.strip().lower(), value.strip())
        for name, colon, value in (line.partition(b":") for line in lines[:20])
        if colon
        and _METHOD.fullmatch(name.strip().decode("latin-1"))
        and all(byte > 31 or byte == 9 for byte in value.strip())
    ]
    # Whoever asks for this machine by name, without TLS, is the local operator and reads it all.
    headers.append((b"host", b"localhost"))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method[:16],
        "scheme": "http", "path": urllib.parse.unquote(path, "latin-1"),
        "raw_path": path.encode("latin-1"), "query_string": query.encode("latin-1"),
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("x", 80),
    }  # fmt: skip
    answers: list[dict[str, Any]] = []
    asyncio.run(_ask(scope, body, answers))
    status = next(a["status"] for a in answers if a["type"] == "http.response.start")
    if status >= 500 and status != 503:
        raise FindingError(f"http: {data!r}: answers {status}")
    content = b"".join(a.get("body", b"") for a in answers if a["type"] == "http.response.body")
    if 400 <= status < 500 and method != "HEAD":
        error = json.loads(content)["error"]
        if not error["problem"]:
            raise FindingError(f"http: {data!r}: does not say what is wrong")


async def _ask(scope: dict[str, Any], body: bytes, answers: list[dict[str, Any]]) -> None:
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    await app()(scope, receive, send)


def plain_cbor(value: Any) -> bytes:
    return cbor.encode(value)


def sealed_headers() -> list[bytes]:
    return [vector("sealed_header")]


def verify_proof(value: Any) -> None:
    value.verify(founding())


def one(*path: str) -> Callable[[], list[bytes]]:
    return lambda: [vector(*path)]


TRANSACTION = Harness(
    "transaction", transactions, parse_transaction, encode=encode_transaction,
    verify=verify_transaction,
)  # fmt: skip
HARNESSES: tuple[Harness, ...] = (
    Harness(
        "cbor",
        lambda: [*transactions(), *packs(), vector("proof"), vector("founding")],
        lambda data: cbor.decode(data, MAX_BYTES),
        encode=plain_cbor,
    ),
    Harness(
        "sign1",
        lambda: [*transactions(), vector("vote")],
        lambda data: cose.parse_sign1(data, MAX_TRANSACTION_BYTES),
        encode=signed,
        verify=lambda value: value.verify(key_of(value.kid), founding().chain_id),
    ),
    Harness(
        "mac0",
        one("receipt", "bytes"),
        lambda data: cose.parse_mac0(data, 512),
        verify=lambda value: value.verify(vector("receipt", "key"), founding().chain_id),
    ),
    Harness("receipt", one("receipt", "bytes"), receipt_of, verify=taken_receipt),
    Harness("senml", packs, decode_pack),
    TRANSACTION,
    Harness(
        "pack",
        one("transactions", "pack", "bytes"),
        parse_any_pack,
        encode=encode_transaction,
        verify=verify_transaction,
    ),
    *(
        replace(TRANSACTION, name=f"transaction-{kind}", seeds=one("transactions", kind, "bytes"))
        for kind in KINDS
    ),
    Harness("block", one("block", "bytes"), parse_block, encode=encode_block, verify=verify_block),
    Harness(
        "coinbase",
        lambda: [parse_block(vector("block", "bytes")).coinbase.raw],
        parse_coinbase,
        encode=lambda value: signed(value.message),
        verify=lambda value: value.message.verify(key_of(value.miner), founding().chain_id),
    ),
    Harness(
        "vote",
        one("vote"),
        parse_vote,
        encode=lambda value: value.raw,
        verify=lambda value: verify_vote(value, key_of(value.validator), founding().chain_id),
    ),
    Harness(
        "proposal",
        one("proposal"),
        parse_proposal,
        encode=lambda value: value.raw,
        verify=lambda value: verify_proposal(value, key_of(value.validator), founding().chain_id),
    ),
    Harness("certificate", one("certificate"), parse_certificate, encode=lambda v: v.encode()),
    Harness("sealed-header", sealed_headers, SealedHeader.decode),
    Harness(
        "validators",
        lambda: [cbor.encode(founding().validator_set.value())],
        ValidatorSet.decode,
        encode=lambda value: cbor.encode(value.value()),
    ),
    Harness(
        "proof",
        lambda: [vector("proof"), vector("range_proof")],
        parse_proof,
        encode=lambda value: value.encode(),
        verify=verify_proof,
    ),
    Harness("founding", one("founding"), parse_founding, encode=lambda value: value.raw),
    Harness(
        "bundle",
        one("bundle"),
        parse_bundle,
        encode=lambda value: encode_bundle([m.raw for m in value.signatures], value.payload),
        verify=verify_bundle,
    ),
    Harness(
        "manifest",
        lambda: [parse_bundle(vector("bundle")).signatures[0].payload],
        Manifest.decode,
        encode=lambda value: value.encode(),
    ),
    Harness("wire", wire_seeds, wire.parse_message, encode=encode_wire),
    Harness(
        "config", config_seeds, from_file(config.load, "fog.toml"), errors=(ConfigurationError,)
    ),
    Harness("csv", csv_seeds, from_file(read_csv, "recording.csv"), errors=(CloudError,)),
    Harness(
        "csv-labels",
        label_seeds,
        from_file(read_label_file, "labels.csv"),
        errors=(CloudError,),
    ),
    Harness(
        "membership-request",
        request_seeds,
        from_file(lambda path: load_request(path, founding()), "request.json"),
        errors=(ToolError,),
    ),
    Harness("certificate-x509", certificate_seeds, shown_member, errors=(NetworkError,)),
    Harness("admission", admission_seeds, admit),
    Harness("mqtt-topic", lambda: [b"fogline/seoul/up/" + BOARD.kid.hex().encode()], read_topic),
    Harness("mqtt-status", statuses, parse_status),
    Harness("http", http_seeds, request),
)
BY_NAME = {harness.name: harness for harness in HARNESSES}
