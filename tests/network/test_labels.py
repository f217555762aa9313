"""Labels and lineage as an engineer meets them: commands, against daemons that come and go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Daemon, found, level, make_daemons, stop_all, until
from typer.testing import CliRunner

from cloud.collect import catch_up
from cloud.dataset import Dataset
from cloud.selection import Query, select
from fog_node.protocol import senml
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.transactions import Channel, Enrol, PackBody, Release, sign_transaction
from tools import cli
from tools.consortium import Consortium, load_key
from tools.submit import submit, wait_final

PUMP = "pump"
START_S = 1_767_225_600
START = "2026-01-01T00:00:00Z"
BOARDS = (SigningKey.from_secret(7001), SigningKey.from_secret(7002))
PACKS, ROWS = 3, 10


async def fogline(*arguments: object) -> tuple[int, str]:
    """Run a command; returns its exit code, and what it says."""
    result = await asyncio.to_thread(CliRunner().invoke, cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return cli.EXIT_REFUSED, str(result.exception)
    return result.exit_code, result.output


async def done(*arguments: object, report: Path) -> Any:
    """Run a command that must succeed; returns its JSON."""
    code, said = await fogline(*arguments, "--json", report)
    assert code == 0, said
    return json.loads(await asyncio.to_thread(report.read_text))


@pytest.fixture
async def running(tmp_path):
    """Two validators with two boards' readings."""
    consortium = found(tmp_path / "c", ("seoul", "busan"))
    daemons = make_daemons(consortium, tmp_path)
    try:
        await asyncio.gather(*(daemon.start() for daemon in daemons))
        await _send_readings(consortium, daemons)
        yield consortium, daemons
    finally:
        await stop_all(daemons)


async def _send_readings(consortium: Consortium, daemons: list[Daemon]) -> None:
    daemon = daemons[0]
    key = load_key(consortium.member_directory("operator") / "signing.key")
    channels = (Channel("current", "A", -5, 5),)
    for board in BOARDS:
        body = Enrol(board.public, "operator", PUMP, "unix", channels, START_S * 1000)
        await submit(daemon.client, key, body, consortium.founding)
    sent = []
    for board in BOARDS:
        for number in range(1, PACKS + 1):
            rows = [(i, [("current", "A", 0.5 * number)]) for i in range(ROWS)]
            payload = senml.encode_pack(32473, board.kid, START_S + ROWS * (number - 1), rows)
            pack = sign_transaction(
                board, PackBody.decode(payload), consortium.founding.chain_id, number, dropped=0
            )
            await daemon.client.submit(pack.raw)
            sent.append(pack)
    for pack in sent:
        await wait_final(daemon.client, pack)
    await level(*daemons)


def _labels(tmp_path: Path) -> Path:
    """Labels of both boards, and a row that nobody has answered."""
    first, second = (board.kid.hex() for board in BOARDS)
    file = tmp_path / "labels.csv"
    file.write_text(
        "device,from,until,first,last,image,value,score\n"
        f"{first},{START},2026-01-01T00:00:04.000Z,,,,anomaly,1\n"
        f"{first},{START},2026-01-01T00:00:29Z,,,,,2\n"
        f"{second},,,2,2,,valve closed,3\n"
    )
    return file


async def test_labels_are_given_listed_disputed_and_followed(running, tmp_path: Path) -> None:
    consortium, (seoul, busan) = running
    first, second = (board.kid.hex() for board in BOARDS)
    data, out = tmp_path / "data", tmp_path / "out.json"
    common = ("--founding", consortium.founding_file, "--api", busan.url)

    def as_(name: str) -> tuple[object, ...]:
        return (*common, "--key", consortium.member_directory(name) / "signing.key")

    sent = await done("label", "import", _labels(tmp_path), *as_("operator"), report=out)
    assert (sent["labels"], len(sent["transactions"])) == (2, 1)
    add = ("label", "add", "--device", first, "--from", START, "--until", "2026-01-01T00:00:00Z")
    await done(*add, "--value", "normal", "--note", "just noise", *as_("trainer"), report=out)
    code, said = await fogline(*add, "--value", "normal", *as_("seoul"))
    assert code == 1
    assert "label needs the role trainer or operator" in said
    code, said = await fogline(
        "label", "add", "--device", first, "--packs", f"1-{PACKS + 1}", "--value", "x",
        *as_("operator"),
    )  # fmt: skip
    assert code == 1
    assert "label.labels[0].target.last" in said

    listed = (await done("label", "list", *common, "--data", data, report=out))["labels"]
    assert [(row["member"], row["value"], row["stands"]) for row in listed] == [
        ("trainer", "normal", "disputed"),
        ("operator", "valve closed", "stands"),
        ("operator", "anomaly", "disputed"),
    ]
    await level(seoul, busan)
    shown = await done("label", "show", listed[0]["transaction"], "--api", seoul.url, report=out)
    assert shown["labels"] == [
        {
            "device": first,
            "from": "2026-01-01T00:00:00.000Z",
            "until": "2026-01-01T00:00:00.000Z",
            "value": "normal",
        }
    ]
    assert (shown["member"], shown["note"]) == ("trainer", "just noise")
    # Each may correct what he has said himself, by saying it anew or taking it back.
    await done(*add, "--take-back", *as_("trainer"), report=out)
    listed = (await done("label", "list", *common, "--data", data, report=out))["labels"]
    assert [row["stands"] for row in listed] == ["taken back", "superseded", "stands", "stands"]
    of_second = await done("label", "list", *common, "--data", data, "--device", second, report=out)
    assert [row["value"] for row in of_second["labels"]] == ["valve closed"]

    rows = select(Dataset.open(data), Query(PUMP)).readings
    assert rows[BOARDS[0].kid].excluded.tolist() == [True] * 5 + [False] * 25
    assert rows[BOARDS[1].kid].excluded.tolist() == [False] * 10 + [True] * 10 + [False] * 10


async def test_a_release_is_traced_from_any_node_and_from_a_data_set(
    running, tmp_path: Path
) -> None:
    consortium, (seoul, busan) = running
    data, out = tmp_path / "data", tmp_path / "out.json"
    common = ("--founding", consortium.founding_file, "--api", seoul.url)
    key = consortium.member_directory("operator") / "signing.key"
    await done("label", "import", _labels(tmp_path), *common, "--key", key, report=out)
    await done("label", "list", *common, "--data", data, report=out)
    # A release of what was selected; then the node that it came from is gone.
    reference = select(Dataset.open(data), Query(PUMP)).reference
    trainer = load_key(consortium.member_directory("trainer") / "signing.key")
    body = Release(
        "anomaly", 1, PUMP, bytes(32), bytes(32), 9, (), reference, START_S * 1000
    )  # fmt: skip
    await submit(seoul.client, trainer, body, consortium.founding)
    wrong = replace(body, version=2, dataset=replace(reference, root=bytes(32)))
    await submit(seoul.client, trainer, wrong, consortium.founding)

    async def has_both() -> bool:
        return (await busan.client.status()).final.get("release", 0) == 2

    await until(has_both, "busan has both releases")
    await seoul.process.kill()
    both = ("--api", seoul.url, "--api", busan.url, "--founding", consortium.founding_file)
    lineage = ("model", "lineage", "anomaly", *both)
    csv_file = tmp_path / "transactions.csv"
    from_chain = await done(*lineage, "--version", 1, "--transactions", csv_file, report=out)
    assert from_chain["sealed"] is True
    assert from_chain["transactions"] == 2 * PACKS
    assert {board["left_out_by_labels"] for board in from_chain["boards"]} == {5, 10}
    assert len(csv_file.read_text().splitlines()) == 2 * PACKS + 1
    code, said = await fogline(*lineage, "--json", out)
    assert code == 1
    assert f"root: the release says {bytes(32).hex()}, the chain {reference.root.hex()}" in said
    assert json.loads(out.read_text())["sealed"] is False
    # The data set as it was collected has not seen the releases; brought up to date, it has.
    offline = ("model", "lineage", "anomaly", "--version", 1, "--data", data)
    code, said = await fogline(*offline, "--founding", consortium.founding_file)
    assert code == 1
    assert "is not on the chain up to block" in said
    assert await done(*offline, *both, report=out) == from_chain
    alone = await done(*offline, "--founding", consortium.founding_file, report=out)
    assert alone == from_chain


async def test_a_data_set_goes_on_from_node_to_node(running, tmp_path: Path) -> None:
    consortium, (seoul, busan) = running
    dataset = Dataset.open(tmp_path / "data")
    await catch_up([seoul.client], consortium.founding, dataset)
    height = dataset.height
    operator = load_key(consortium.member_directory("operator") / "signing.key")
    other = SigningKey.from_secret(7003)
    channels = (Channel("current", "A", -5, 5),)
    body = Enrol(other.public, "operator", PUMP, "unix", channels, START_S * 1000)
    await submit(busan.client, operator, body, consortium.founding)
    await seoul.process.kill()
    again = Dataset.open(tmp_path / "data")
    await catch_up([seoul.client, busan.client], consortium.founding, again)
    assert again.height > height
    assert len(again.devices()) == 3
    assert sum(map(len, again.readings(PUMP).values())) == 2 * PACKS * ROWS
    whole = Dataset.open(tmp_path / "whole")
    await catch_up([busan.client], consortium.founding, whole)
    query = Query(PUMP, height=again.height)
    assert select(again, query).reference == select(whole, query).reference
