"""What `fogline hil submit`, `reports` and `show` do, over a chain with a node's real API."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.rig_reports import rig_report

from fog_node.client import RefusedError
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.rig_reports import RESULTS, ReportedBoard
from fog_node.protocol.transactions import TestReport
from tools import cli, proofs
from tools.boards import load_board
from tools.devices import update
from tools.errors import ToolError, UsageError
from tools.hil import rig_reports, suite
from tools.hil.target import About
from tools.nodes import Nodes

NODES = Nodes(("http://localhost",))
TESTS = (("test_cbor", "test_maps"), ("test_cbor", "test_bytes"), ("test_p256", "test_sign"))
CHECKOUT = rig_reports.Checkout("11" * 32, "22" * 32, frozenset(TESTS))
ABOUT = About("micropython", "1.26.1", "mps2-an385 with Cortex-M3", 143360, "armv7m", 6)


def a_run(target: str, tests=TESTS, failed=()) -> suite.Run:
    results = [
        suite.Result(module, test, "failed" if test in failed else "passed", 143360, 9, 9)
        for module, test in tests
    ]
    return suite.Run(target, ABOUT, CHECKOUT.firmware, results, 1.0)


def written(path, *runs: suite.Run, of: int = len(TESTS)):
    """A file as `fogline hil run --json` writes it."""
    path.write_text(
        json.dumps(
            {
                "firmware": CHECKOUT.firmware,
                "suite": {"sha256": CHECKOUT.suite, "tests": of},
                "rig": None,
                "time": "2026-01-01T00:00:00.000+00:00",
                "runs": [run.as_json() for run in runs],
            }
        )
    )
    return path


@pytest.fixture
def file(tmp_path):
    runs = [a_run("qemu-arm"), a_run("serial:/dev/ttyACM0", failed=("test_sign",))]
    return written(tmp_path / "report.json", *runs)


@pytest.fixture(autouse=True)
def _final_at_once(node):
    """Each test has the chain's API."""


async def sent(chain, file, key=None, **told):
    read = rig_reports.load(file)
    made = rig_reports.bodies(read, CHECKOUT, "bench-1", **told)
    return await rig_reports.send(NODES, chain.founding, key or chain.operator, made, read.data)


async def test_a_report_goes_on_the_chain_a_transaction_for_each_target(chain, file, tmp_path):
    board = SigningKey.from_secret(7)
    chain.enrol(board)
    kids = rig_reports.parse_kids([f"serial:/dev/ttyACM0={board.kid.hex()}"])
    first, second = await sent(chain, file, kids=kids)
    assert (first["passed"], first["failed"]) == (3, 0)
    assert (second["passed"], second["failed"]) == (2, 1)

    rows = await rig_reports.listing(NODES, None, 10)
    assert [row["report"] for row in rows] == [second["transaction"], first["transaction"]]
    assert rows[0]["device"] == board.kid.hex()
    assert rows[0]["operator"] == "operator"
    assert "2 passed, 1 failed" in rig_reports.line(rows[0])
    assert len(await rig_reports.listing(NODES, "11" * 4, 1)) == 1
    assert await rig_reports.listing(NODES, "33" * 32, 10) == []

    shown, data = await rig_reports.show(NODES, bytes.fromhex(second["transaction"]))
    assert data == file.read_bytes()
    assert shown["tests"]["failed"] == ["test_p256.test_sign"]
    assert shown["tests"]["passed"] == ["test_cbor.test_bytes", "test_cbor.test_maps"]

    proof = chain.ledger.prove(bytes.fromhex(second["transaction"]))
    (tmp_path / "one.proof").write_bytes(proof.encode())
    (tmp_path / "founding.cbor").write_bytes(chain.founding.raw)
    proven = proofs.verify(tmp_path / "one.proof", tmp_path / "founding.cbor")
    assert proven["holds"]
    assert proven["kind"] == "test-report"
    assert proven["firmware"] == CHECKOUT.firmware
    assert proven["failed"] == ["test_p256.test_sign"]
    assert proven["device"] == board.kid.hex()


async def test_sending_it_again_changes_nothing_but_what_is_new(chain, file):
    sent_first = await sent(chain, file)
    assert await sent(chain, file) == sent_first
    assert len(await rig_reports.listing(NODES, None, 10)) == 2
    board = SigningKey.from_secret(7)
    chain.enrol(board)
    corrected = await sent(chain, file, kids={"qemu-arm": board.kid})
    assert corrected[0]["transaction"] != sent_first[0]["transaction"]
    assert corrected[1] == sent_first[1]
    assert len(await rig_reports.listing(NODES, None, 10)) == 3


async def test_only_an_operator_can_send_one(chain, file):
    with pytest.raises(RefusedError, match="needs the role operator"):
        await sent(chain, file, key=chain.trainer)


async def test_a_board_that_is_not_enrolled_is_refused(chain, file):
    with pytest.raises(RefusedError, match="is no device"):
        await sent(chain, file, kids={"qemu-arm": bytes(8)})


def test_an_incomplete_report_is_refused_unless_told(tmp_path):
    read = rig_reports.load(written(tmp_path / "some.json", a_run("qemu-arm", TESTS[:2])))
    with pytest.raises(ToolError, match="lacks 1 of the suite's 3 tests"):
        rig_reports.bodies(read, CHECKOUT, "bench-1")
    (body,) = rig_reports.bodies(read, CHECKOUT, "bench-1", partial=True)
    assert body.counts == {"passed": 2, "failed": 0, "memory": 0, "skipped": 0, "not_asked": 1}


@pytest.mark.parametrize("changed", ["firmware", "suite"])
def test_a_report_of_another_checkout_is_refused_unless_told(file, changed):
    read = rig_reports.load(file)
    here = replace(CHECKOUT, **{changed: "33" * 32})
    with pytest.raises(ToolError, match="this checkout's are 3333333333333333"):
        rig_reports.bodies(read, here, "bench-1")
    assert len(rig_reports.bodies(read, here, "bench-1", other=True)) == 2


def test_tests_that_the_suite_has_not_are_refused(tmp_path):
    strange = (*TESTS[:2], ("test_p256", "test_made_up"))
    read = rig_reports.load(written(tmp_path / "some.json", a_run("unix", strange)))
    with pytest.raises(ToolError, match=r"test_p256\.test_made_up is no test"):
        rig_reports.bodies(read, CHECKOUT, "bench-1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file["runs"][0].update(passed=4), "says 4 passed, and lists 3"),
        (lambda file: file["runs"][0]["tests"].append(file["runs"][0]["tests"][0]), "twice"),
        (lambda file: file["runs"][0].update(firmware_sha256="33" * 32), "other firmware"),
        (lambda file: file["runs"][1].update(target="qemu-arm"), "two runs on one target"),
        (lambda file: file["suite"].update(tests=2), "more tests than the suite"),
        (lambda file: file.update(firmware="xyz"), "firmware"),
        (lambda file: file.update(time="2026-01-01T00:00:00"), "time"),
        (lambda file: file.update(runs=[]), "runs"),
        (lambda file: file.update(more=1), "more"),
        (lambda file: file.pop("suite"), "suite"),
        (lambda file: file["runs"][0]["tests"][0].update(result="perhaps"), "result"),
    ],
)
def test_a_report_that_is_none_or_says_two_things_is_refused(file, change, says):
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    with pytest.raises(ToolError, match=says) as caught:
        rig_reports.load(file)
    assert str(file) in str(caught.value)


def test_what_is_cut_off_too_large_or_not_there_is_refused(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ToolError, match="hil run --json"):
        rig_reports.load(file)
    file.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(ToolError, match="at most 1048576"):
        rig_reports.load(file)
    with pytest.raises(ToolError, match="cannot be read"):
        rig_reports.load(tmp_path / "absent.json")


@pytest.mark.parametrize("given", [["qemu-arm"], ["a=12"], ["a=" + "00" * 8] * 2])
def test_key_ids_are_given_by_target(given):
    with pytest.raises(UsageError, match="--kid"):
        rig_reports.parse_kids(given)


def test_a_key_id_for_a_target_that_did_not_run_is_refused(file):
    with pytest.raises(UsageError, match="no run on this target"):
        rig_reports.bodies(rig_reports.load(file), CHECKOUT, "a", kids={"unix": bytes(8)})


@pytest.mark.parametrize("rig", ["", "r" * 65, "a\nb"])
def test_a_rigs_name_that_does_not_fit_is_refused(file, rig):
    with pytest.raises(ToolError, match=r"test-report\.rig"):
        rig_reports.bodies(rig_reports.load(file), CHECKOUT, rig)


@pytest.mark.parametrize("firmware", ["1111111", "xyzxyzxyz", "1" * 65])
async def test_firmware_is_named_by_its_hash(firmware):
    with pytest.raises(UsageError, match="--firmware"):
        await rig_reports.listing(NODES, firmware, 1)


async def test_another_kind_is_no_report(chain):
    chain.enrol(SigningKey.from_secret(7))
    (enrolment,) = chain.ledger.list_kind("enrol")
    with pytest.raises(UsageError, match="is a enrol, no test report"):
        await rig_reports.show(NODES, enrolment.id)


async def test_released_firmware_is_named_if_it_is_the_checkouts(chain, file, tmp_path, node):
    board = load_board("pico-w")
    with pytest.raises(ToolError, match="no firmware is released"):
        await rig_reports.released_as(NODES, board.inference.board_class)

    made = update.build(board, chain.operator, chain.founding, version=3)
    async with NODES.client() as client:
        await update.publish(client, made, chain.operator, chain.founding)
    release = await rig_reports.released_as(NODES, board.inference.board_class)
    assert (release.version, release.bundle) == (3, made.release.bundle)
    await sent(chain, file, release=release)
    (row, _) = await rig_reports.listing(NODES, None, 10)
    assert row["release"] == "fogline 3"
    with pytest.raises(RefusedError, match="not that of version 3"):
        await sent(chain, file, release=replace(release, bundle=bytes(32)))


async def test_a_release_of_other_files_is_not_named(chain, monkeypatch):
    board = load_board("pico-w")
    made = update.build(board, chain.operator, chain.founding, version=3)
    async with NODES.client() as client:
        await update.publish(client, made, chain.operator, chain.founding)
    monkeypatch.setattr(rig_reports, "updates", lambda arch: (0, {"fogline/app.mpy": b"other"}))
    with pytest.raises(ToolError, match="holds other files"):
        await rig_reports.released_as(NODES, board.inference.board_class)


def test_the_whole_suite_fits_into_a_transaction(tmp_path):
    """With every test that there is now."""
    here = rig_reports.Checkout.here()
    run = a_run("serial:/dev/ttyACM0", sorted(here.tests))
    run.firmware_sha256 = here.firmware
    path = written(tmp_path / "all.json", run, of=len(here.tests))
    value = json.loads(path.read_text())
    value["firmware"], value["suite"]["sha256"] = here.firmware, here.suite
    path.write_text(json.dumps(value))
    (body,) = rig_reports.bodies(rig_reports.load(path), here, "r" * 64)
    assert body.counts["passed"] == len(here.tests)


def test_a_report_encodes_to_what_it_was_decoded_from():
    report = rig_report(board=ReportedBoard("a", "b", bytes(8)))
    assert TestReport.decode(report.encode()) == report
    assert sum(len(report.tests(result)) for result in RESULTS) + report.counts["not_asked"] == 4


@pytest.fixture
def fogline(chain, tmp_path, monkeypatch, capsys):
    """Call `fogline hil` of the checkout that the reports are of: (exit code, all that it said)."""
    monkeypatch.setattr(rig_reports.Checkout, "here", classmethod(lambda cls: CHECKOUT))
    (tmp_path / "founding.cbor").write_bytes(chain.founding.raw)
    (tmp_path / "signing.key").write_bytes(chain.operator.to_pem())

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fogline", "hil", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out + captured.err

    return call


def test_the_commands(file, tmp_path, fogline):
    as_operator = ("--founding", tmp_path / "founding.cbor", "--key", tmp_path / "signing.key")
    api = ("--api", "http://localhost")
    assert fogline("reports", *api) == (0, "no report\n")
    result = tmp_path / "result.json"
    code, said = fogline("submit", file, *as_operator, *api, "--rig", "bench-1", "--json", result)
    assert code == 0, said
    first, second = json.loads(result.read_text())["reports"]
    assert (first["failed"], second["failed"]) == (0, 1)

    code, said = fogline("reports", *api, "--firmware", CHECKOUT.firmware[:8])
    assert code == 0
    assert len(said.splitlines()) == 2
    assert "[bench-1, operator]" in said
    copy = tmp_path / "copy.json"
    code, said = fogline("show", second["transaction"], *api, "--out", copy)
    assert code == 0
    assert "test_p256.test_sign" in said
    assert copy.read_bytes() == file.read_bytes()

    written(file, a_run("qemu-arm", TESTS[:2]))
    code, said = fogline("submit", file, *as_operator, *api)
    assert (code, "--partial" in said) == (1, True)
    assert fogline("submit", file, *as_operator, *api, "--partial")[0] == 0
    code, said = fogline("reports", *api, "--limit", 1)
    assert "1 not asked" in said
    code, said = fogline("submit", file, *as_operator, *api, "--partial", "--kid", "qemu-arm")
    assert (code, "--kid qemu-arm" in said) == (2, True)
