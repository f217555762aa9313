"""`fogline device ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    OperatorKey,
    console,
    errors,
    new_app,
    report,
    run,
)
from tools.errors import ToolError, UsageError
from tools.nodes import Nodes
from tools.outputs import write_out

app = new_app("Flash, provision, enrol, label and watch boards.")

Ports = Annotated[
    list[str] | None,
    typer.Option("--port", help="Port or BOOTSEL drive of a board; repeatable. \\[the only one]"),
]
All = Annotated[bool, typer.Option("--all", help="All boards that `fogline device list` shows.")]
Kind = Annotated[
    str | None,
    typer.Option("--board", help="What kind they are, by hardware/boards/. \\[what they say]"),
]
Workers = Annotated[int, typer.Option(min=1, max=64, help="How many boards at once.")]
Tries = Annotated[int, typer.Option(min=1, max=10, help="How often each is tried.")]
ReportFile = Annotated[
    Path,
    typer.Option("--from", metavar="FILE", help="What `fogline device provision --json` wrote."),
]


@app.command("list")
def device_list(
    ask: Annotated[
        bool,
        typer.Option(
            help="Ask each what it runs. That interrupts its program, which then starts again and "
            "goes on where it was; --no-ask goes by USB ids alone."
        ),
    ] = True,
    workers: Workers = 8,
    api: Annotated[
        list[str] | None,
        typer.Option(
            "--api", metavar="URL", help="List the boards on the chain too, of this node."
        ),
    ] = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Find the boards that are plugged in, by their USB ids, and say what they run.

    Example: fogline device list --json bench.json
    """
    from tools.boards import load_boards
    from tools.devices import fleet, work
    from tools.devices.found import find_boards
    from tools.devices.progress import view

    boards = load_boards()
    found = {one.port: one for one in find_boards(boards)}
    if ask:
        with view(errors) as shown:
            outcomes = fleet.run_all(
                list(found),
                lambda port, _attempt, tell: work.look(found[port], boards, tell=tell),
                shown,
                workers=workers,
            )
        rows = [outcome.result for outcome in outcomes]
    else:
        rows = [one.as_dict() for one in found.values()]
    result: dict[str, Any] = {"boards": rows}
    if api is not None:
        result["devices"] = run(_enrolled(Nodes.of(api, member)))
    report(result, json_file)
    if not rows and api is None:
        raise ToolError(
            "no board is plugged in that hardware/boards/ knows; use a cable that carries data, "
            "and hold BOOTSEL while plugging a new Pico in"
        )


async def _enrolled(nodes: Nodes) -> list[dict[str, Any]]:
    async with nodes.client() as client:
        return [device.model_dump() for device in await client.devices()]


@app.command("flash")
def device_flash(
    firmware: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Image of micropython.org/download: .bin for an ESP32, .uf2 for a Pico. "
            "Repeatable: each board takes the one that is for it.",
        ),
    ],
    sha256: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEX", help="SHA-256 of a file that tools/devices/known_images.toml lacks."
        ),
    ] = None,
    port: Ports = None,
    everything: All = False,
    board: Kind = None,
    erase: Annotated[
        bool, typer.Option(help="Erase an ESP32 first: its files go, and its key for good.")
    ] = False,
    workers: Workers = 8,
    tries: Tries = 3,
    json_file: JsonFile = None,
) -> None:
    """Put MicroPython on boards, many at once. Files and key on them stay.

    A running Pico restarts as a drive by itself; a new one is plugged in with BOOTSEL held. A board
    that fails does not hold up the others: each is tried again, more slowly each time, and the
    report says what to press or plug. The same command again does what is left.

    Example: fogline device flash --all --firmware ESP32_GENERIC-20251209-v1.27.0.bin
    """
    from tools.boards import load_boards
    from tools.devices import fleet, work
    from tools.devices.found import find_boards
    from tools.devices.images import load_image
    from tools.devices.progress import view

    boards = load_boards()
    images = [load_image(path, sha256 or ()) for path in firmware]
    found = find_boards(boards)
    flashing = work.flashing(images, boards, board, found, erase=erase)
    ports = work.choose(found, port or [], everything=everything)
    with view(errors) as shown:
        outcomes = fleet.run_all(ports, flashing, shown, workers=workers, tries=tries)
    _report_boards(outcomes, json_file)


@app.command("provision")
def device_provision(
    settings: Annotated[
        Path, typer.Option(metavar="FILE", help="What board.json is to hold, as JSON.")
    ],
    founding: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Founding file: gives chain_id, enterprise_number, gateways and release_keys "
            "where the settings leave them out.",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A further file for the flash root; repeatable."),
    ] = None,
    port: Ports = None,
    everything: All = False,
    board: Kind = None,
    source: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Our firmware. \\[that of this checkout]")
    ] = None,
    start: Annotated[bool, typer.Option(help="Start it, and see that it runs.")] = True,
    lock: Annotated[
        bool,
        typer.Option(
            help="Close its prompt behind all else, so that nobody reads its key over the line. "
            "From then on it is provisioned anew only behind `flash --erase`, with a new key."
        ),
    ] = False,
    workers: Workers = 8,
    tries: Tries = 3,
    json_file: JsonFile = None,
) -> None:
    """Make boards that run MicroPython ours: firmware, settings, key.

    Copies only what differs from what is there. The key is made on the board, never leaves it, and
    proves itself. However it was interrupted, the same command repairs the board. The
    report is what `enroll --from` and `label --from` take.

    Example: fogline device provision --all --settings pump.json --founding founding.cbor
    --json provisioned.json
    """
    from tools.boards import load_boards
    from tools.devices import fleet, work
    from tools.devices.found import find_boards
    from tools.devices.progress import view
    from tools.devices.settings import load_settings
    from tools.firmware_files import FIRMWARE

    boards = load_boards()
    loaded = load_settings(
        settings,
        None if founding is None else consortiums.load_founding(founding),
        file or [],
        board,
    )
    provisioning = work.provisioning(
        loaded, boards, board, source=source or FIRMWARE, start=start, lock=lock
    )
    ports = work.choose(find_boards(boards), port or [], everything=everything)
    with view(errors) as shown:
        outcomes = fleet.run_all(ports, provisioning, shown, workers=workers, tries=tries)
    _report_boards(outcomes, json_file)


def _report_boards(outcomes: Any, json_file: Path | None) -> None:
    from tools.devices import fleet

    rows = [outcome.as_dict() for outcome in outcomes]
    if json_file is not None:
        report({"boards": rows}, json_file, show=False)
    for outcome in outcomes:
        words = outcome.result.get("summary") if outcome.is_good else outcome.error
        console.print(
            f"{outcome.name}: {'ok' if outcome.is_good else 'FAILED'}, {words}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if outcome.remedy:
            console.print(f"    {outcome.remedy}", highlight=False, markup=False, soft_wrap=True)
    if problem := fleet.failures(outcomes):
        raise ToolError(problem)


@app.command("enroll")
def device_enroll(
    founding: FoundingFile,
    key: OperatorKey,
    owner: Annotated[str, typer.Option(help="Member that owns the boards.")],
    public_key: Annotated[
        str | None,
        typer.Option(
            help="The board's public key: x and y, 128 hex digits, or what its label's code says."
        ),
    ] = None,
    device_type: Annotated[
        str | None, typer.Option("--type", help="What it measures, by a short name.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="NAME,UNIT,MIN,MAX of a quantity, unit in UCUM; repeatable, in order."),
    ] = None,
    board: Annotated[str | None, typer.Option(help="Kind of board. \\[unix]")] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Enrol all boards that `fogline device provision --json` wrote here, instead.",
        ),
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Put boards' public keys, owner, type and channels on the chain; those on it stay as they are.

    Example: fogline device enroll --founding founding.cbor --key plant/signing.key --owner plant
    --from provisioned.json
    """
    from tools.devices import enrolment
    from tools.devices.work import load_records

    if from_ is not None:
        if public_key or device_type or channel or board:
            raise UsageError("--from: says key, type, channels and board itself; leave those out")
        bodies = [enrolment.of_record(record, owner) for record in load_records(from_)]
    else:
        if not (public_key and device_type and channel):
            raise UsageError("give --from FILE, or --public-key, --type and --channel")
        bodies = [enrolment.enrolment(public_key, owner, device_type, board or "unix", channel)]
    result = run(
        enrolment.enroll_all(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            bodies,
        )
    )
    report({"boards": result} if from_ is not None else result[0], json_file)


@app.command("update")
def device_update(
    founding: FoundingFile,
    key: OperatorKey,
    board: Annotated[str, typer.Option(help="Kind of boards, by hardware/boards/.")],
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Above what the boards run. \\[one above VERSION_NUMBER of the firmware and all "
            "that was released for the class]",
        ),
    ] = None,
    min_version: Annotated[
        int, typer.Option(min=0, help="Boards that run less do not take it.")
    ] = 0,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEX",
            help="Public key, x and y, whose releases boards trust from then on instead; up to 3.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the firmware. \\[firmware/]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the bundle here; release nothing.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Release our firmware to all boards of a class, which fetch, check and try it by themselves.

    Example: fogline device update --founding founding.cbor --key plant/signing.key --board pico-w
    """
    from tools.boards import load_board
    from tools.devices import update as updates
    from tools.devices.enrolment import parse_key
    from tools.firmware_files import FIRMWARE

    consortium = consortiums.load_founding(founding)
    signer = consortiums.load_key(key)
    kind, folder = load_board(board), source or FIRMWARE
    trusted = [parse_key("--trust", text) for text in trust or ()]

    def build(number: int | None) -> updates.Update:
        return updates.build(
            kind,
            signer,
            consortium,
            version=number,
            min_version=min_version,
            trust=trusted,
            source=folder,
        )

    async def release() -> updates.Update:
        async with Nodes.of(api, member).client() as client:
            number = version or await updates.next_version(client, kind, folder)
            made = build(number)
            await updates.publish(client, made, signer, consortium)
            return made

    if out is not None:
        made = build(version)
        write_out(out, made.bundle)
    else:
        made = run(release())
    report(made.as_dict(), json_file)


@app.command("label")
def device_label(
    from_: ReportFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="To print: .pdf, .svg or .png.")],
    owner: Annotated[str | None, typer.Option(help="Member that owns the boards.")] = None,
    sheet: Annotated[
        str, typer.Option(help="Labels on A4, columns x rows: 3x8, 3x7 or 2x7.")
    ] = "3x8",
    skip: Annotated[int, typer.Option(min=0, help="Places on the sheet that are used up.")] = 0,
) -> None:
    """Write printable labels: key id, kind, type, and the public key in a QR code.

    Example: fogline device label --from provisioned.json --out labels.pdf --owner plant
    """
    from tools.devices import labels
    from tools.devices.work import load_records

    if sheet not in labels.SHEETS:
        raise UsageError(f"--sheet {sheet}: choose one of {', '.join(labels.SHEETS)}")
    drawn = [labels.label_of(record, owner) for record in load_records(from_)]
    write_out(out, labels.draw(drawn, labels.SHEETS[sheet], skip, out))
    report({"labels": len(drawn), "sheet": str(out)}, None)


@app.command("monitor")
def device_monitor(
    port: Ports = None,
    everything: All = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long. \\[until Ctrl-C]")
    ] = None,
    keep: Annotated[
        bool, typer.Option(help="Wait for a board that is unplugged to come back.")
    ] = True,
    broker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Show the packs that reach this MQTT broker, too."),
    ] = None,
    broker_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authority of its certificate; else no TLS.")
    ] = None,
    broker_user: Annotated[str | None, typer.Option(help="User name there.")] = None,
    broker_password: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the password.")
    ] = None,
) -> None:
    """Show what boards say: their console, and the readings of the packs that they send.

    Nothing is written to a board. Packs are heard on a serial line that carries them, and at a
    broker; with a broker alone, no board needs to be plugged in.

    Example: fogline device monitor --port /dev/ttyACM0 --broker broker.example:8883
    --broker-ca ca.pem
    """
    from tools.boards import load_boards
    from tools.devices import monitor, work
    from tools.devices.found import find_boards

    at = None
    if broker is not None:
        at = monitor.parse_broker(broker, broker_ca, broker_user, broker_password)
    ports = list(port or [])
    if everything or not (ports or at):
        ports = work.choose(find_boards(load_boards()), ports, everything=everything)

    def show(name: str, line: str) -> None:
        prefix = f"{name}: " if len(ports) + (at is not None) > 1 else ""
        console.print(prefix + line, highlight=False, markup=False, soft_wrap=True)

    try:
        monitor.watch(ports, show, broker=at, seconds=seconds, keep=keep)
    except KeyboardInterrupt:
        return


@app.command("revoke")
def device_revoke(
    kid: Annotated[str, typer.Argument(help="Key id of the board: 16 hex digits.")],
    founding: FoundingFile,
    key: OperatorKey,
    reason: Annotated[str, typer.Option(help="Why; goes on the chain.")],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """End the trust in a board's key: at once, and for good. Members are removed by vote.

    Example: fogline device revoke 0123456789abcdef --founding founding.cbor
    --key plant/signing.key --reason "stolen"
    """
    from tools.devices import enrolment

    result = run(
        enrolment.revoke(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            kid,
            reason,
        )
    )
    report(result, json_file)


@app.command("reinstate")
def device_reinstate(
    kid: Annotated[str, typer.Argument(help="Key id of the board: 16 hex digits.")],
    founding: FoundingFile,
    key: OperatorKey,
    reason: Annotated[str, typer.Option(help="Why it is to be trusted again; on the chain.")],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """End the quarantine of a board whose key was in two hands, once one of them is gone.

    Where you cannot be sure of that, revoke it and enrol the board with a new key instead.

    Example: fogline device reinstate 0123456789abcdef --founding founding.cbor
    --key plant/signing.key --reason "the copied flash was destroyed"
    """
    from tools.devices import enrolment

    result = run(
        enrolment.reinstate(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            kid,
            reason,
        )
    )
    report(result, json_file)
