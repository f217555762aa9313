"""The `fogline` command: arguments in, one function call, a result for people or for JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cloud.errors import CloudError
from fog_node.errors import FogNodeError
from fog_node.protocol.errors import ProtocolError
from tools import consortium as consortiums
from tools.errors import ToolError, UsageError

EXIT_REFUSED = 1
EXIT_USAGE = 2
DEFAULT_API = "http://127.0.0.1:7480"
TRANSACTION_ID_BYTES = 32

console = Console()
errors = Console(stderr=True)


def _app(help_: str) -> typer.Typer:
    return typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode="rich")


app = _app("Readings signed on boards, sealed by a consortium, judged by models it can check.")
consortium_app = _app("Found a consortium and issue its certificates.")
fog_app = _app("Set up, run and look at a fog node.")
device_app = _app("Enrol, revoke and list boards.")
train_app = _app("Train a model on sealed readings.")
evaluate_app = _app("Measure a trained model.")
model_app = _app("Release models to boards.")
proof_app = _app("Get and check proofs that a transaction is final.")
bench_app = _app("Measure, as ratios within one run.")
for name, sub in (
    ("consortium", consortium_app),
    ("fog", fog_app),
    ("device", device_app),
    ("train", train_app),
    ("evaluate", evaluate_app),
    ("model", model_app),
    ("proof", proof_app),
    ("bench", bench_app),
):
    app.add_typer(sub, name=name)

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result here, as JSON.")
]
FoundingFile = Annotated[
    Path, typer.Option("--founding", metavar="FILE", help="The consortium's founding file.")
]
Api = Annotated[
    list[str] | None,
    typer.Option("--api", metavar="URL", help=f"A fog node's API; repeatable. [{DEFAULT_API}]"),
]
OperatorKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Signing key of a member who is operator.")
]
DatasetDirectory = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data set; what it lacks is collected.")
]
DeviceType = Annotated[str, typer.Option("--device-type", help="Type of the boards, as enrolled.")]
ConsortiumDirectory = Annotated[
    Path, typer.Option("--consortium", metavar="DIR", help="What `consortium create` made.")
]


def report(result: Any, json_file: Path | None) -> None:
    """Print a result for people and, where asked for, write it as JSON."""
    if json_file is not None:
        write_out(json_file, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    _show(result)


def write_out(path: Path, data: bytes) -> None:
    """Write what a command was asked to write; raises ToolError."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ToolError(f"{path}: cannot be written: {error.strerror}") from error


def _show(result: Any) -> None:
    if isinstance(result, list):
        for item in result:
            _show(item)
            console.print()
        return
    for key, value in result.items():
        label = key.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            table = Table(*(str(column) for column in value[0]), title=label, title_justify="left")
            for row in value:
                table.add_row(*(escape(_cell(cell)) for cell in row.values()))
            console.print(table)
        else:
            shown = escape(_cell(value))  # a unit may be "[g]"
            console.print(f"{label}: [bold]{shown}[/]", highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of a command."""
    return asyncio.run(coroutine)


@app.command("demo")
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Working folder, kept; else a temporary one.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=32, help="How many boards.")] = 4,
    replay: Annotated[
        Path | None,
        typer.Option(help="Folder of SKAB-format CSV recordings; else a simulated test bed."),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running broker; else an own one.")
    ] = None,
    broker_ca: Annotated[
        Path | None, typer.Option(help="PEM authority of that broker: speak TLS with it.")
    ] = None,
    broker_username: Annotated[str | None, typer.Option(help="User name there.")] = None,
    broker_password_file: Annotated[
        Path | None, typer.Option(help="File with the password there.")
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="SIGKILL a validator and the own broker mid-stream.")
    ] = False,
    rate: Annotated[
        float, typer.Option(metavar="HZ", min=0, help="Rows per second and board; 0: no limit.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the simulated test bed and the training.")] = 7,
    json_file: JsonFile = None,
) -> None:
    """Run the whole loop on this machine: boards, five fog nodes, training, verdicts, proofs.

    Example: fogline demo --replay ./skab --chaos --json demo.json
    """
    from fog_node.config import split_address
    from tools.demo.fleet import ExternalBroker
    from tools.demo.run import Options
    from tools.demo.run import run as run_demo

    external = None
    if broker is not None:
        try:
            host, port = split_address(broker)
        except ValueError as error:
            raise UsageError(f"--broker {error}") from error
        external = ExternalBroker(host, port, broker_ca, broker_username, broker_password_file)
    elif broker_ca or broker_username or broker_password_file:
        raise UsageError("--broker-ca, --broker-username and --broker-password-file need --broker")
    options = Options(directory, devices, replay, external, chaos, rate, seed)
    summary = run(run_demo(options, console))
    report(summary, json_file)
    if summary["failures"]:
        raise ToolError("the demo does not hold: " + "; ".join(summary["failures"]))


@consortium_app.command("create")
def consortium_create(
    directory: Annotated[Path, typer.Argument(help="New directory for keys and founding file.")],
    validator: Annotated[
        list[str], typer.Option(help="A validator's name; repeatable. Also gets the role gateway.")
    ],
    member: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ROLE[,ROLE] of another member; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the consortium.")] = "fogline",
    quorum: Annotated[
        str, typer.Option(help="majority (more than 51 %) or two-thirds.")
    ] = "majority",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address under which nodes serve; repeatable."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Make the founding file and every member's key and certificate.

    Example: fogline consortium create ./ours --validator seoul --validator busan
    --validator daegu --member plant=operator --member lab=trainer
    """
    members = dict.fromkeys(validator, consortiums.VALIDATOR_ROLES)
    for entry in member or []:
        who, equals, roles = entry.partition("=")
        if not equals or not roles:
            raise UsageError(f"--member {entry}: is not NAME=ROLE[,ROLE]")
        members[who] = members.get(who, frozenset()) | frozenset(roles.split(","))
    founded = consortiums.create(directory, name, members, quorum_rule=quorum, hosts=host or ())
    report(consortiums.describe(founded.founding) | {"directory": str(directory)}, json_file)


@consortium_app.command("show")
def consortium_show(
    founding: Annotated[Path, typer.Argument(help="The founding file.")],
    json_file: JsonFile = None,
) -> None:
    """Say what a founding file holds.

    Example: fogline consortium show ./ours/founding.cbor
    """
    report(consortiums.describe(consortiums.load_founding(founding)), json_file)


@consortium_app.command("issue-certificate")
def consortium_issue_certificate(
    directory: ConsortiumDirectory,
    name: Annotated[str, typer.Option(help="The member, or a server such as `broker`.")],
    out: Annotated[Path, typer.Option(help="Directory for tls.key and tls.crt.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address it serves under; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 825,
) -> None:
    """Issue a TLS certificate, say to renew one or for the broker.

    Example: fogline consortium issue-certificate --consortium ./ours --name broker
    --host broker.plant.example --out ./broker
    """
    opened = consortiums.Consortium.open(directory)
    path = consortiums.issue_certificate(opened, name, out, hosts=host or (), days=days)
    report({"certificate": str(path), "key": str(out / "tls.key")}, None)


@fog_app.command("init")
def fog_init(
    member: Annotated[str, typer.Option(help="Whose node this is.")],
    founding: FoundingFile,
    keys: Annotated[Path, typer.Option(help="Directory with the member's keys.")],
    out: Annotated[Path, typer.Option(help="Directory for fog.toml and the unit.")] = Path(),
    data_dir: Annotated[Path, typer.Option(help="Where the node keeps its data.")] = Path(
        "/var/lib/fogline"
    ),
    peer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=HOST:PORT of another member's node; repeatable."),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="MQTT broker, spoken to over TLS.")
    ] = None,
) -> None:
    """Write a configuration that holds every key with its meaning, and a systemd unit.

    Example: fogline fog init --member seoul --founding founding.cbor --keys ./seoul
    --peer busan=fog2.example:7420 --broker broker.example:8883 --out /etc/fogline
    """
    from tools import fog

    overrides = fog.overrides(peer or [], broker)
    configuration, unit = fog.init(
        out, member, founding, keys, data_dir=data_dir, overrides=overrides
    )
    report({"configuration": str(configuration), "systemd_unit": str(unit)}, None)


@fog_app.command("run")
def fog_run(
    config: Annotated[Path, typer.Option(help="The node's fog.toml.")] = Path("fog.toml"),
) -> None:
    """Run a fog node until SIGTERM or Ctrl-C.

    Example: fogline fog run --config /etc/fogline/fog.toml
    """
    from fog_node.config import load
    from fog_node.node import run_node

    loaded = load(config)
    logging.basicConfig(
        level=loaded.node.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    run(run_node(loaded))


@fog_app.command("status")
def fog_status(api: Api = None, json_file: JsonFile = None) -> None:
    """Say how a fog node is doing.

    Example: fogline fog status --api http://127.0.0.1:7480
    """
    from fog_node.client import Client

    async def ask() -> Any:
        async with Client(api or [DEFAULT_API]) as client:
            return (await client.status()).model_dump()

    report(run(ask()), json_file)


@device_app.command("enroll")
def device_enroll(
    founding: FoundingFile,
    key: OperatorKey,
    public_key: Annotated[
        str, typer.Option(help="The board's public key: x and y, 128 hex digits.")
    ],
    owner: Annotated[str, typer.Option(help="Member that owns the board.")],
    device_type: Annotated[str, typer.Option("--type", help="What it measures, by a short name.")],
    channel: Annotated[
        list[str],
        typer.Option(help="NAME,UNIT,MIN,MAX of a quantity, unit in UCUM; repeatable, in order."),
    ],
    board: Annotated[str, typer.Option(help="Kind of board.")] = "unix",
    api: Api = None,
    json_file: JsonFile = None,
) -> None:
    """Put a board's public key, owner, type and channels on the chain.

    Example: fogline device enroll --founding founding.cbor --key plant/signing.key --owner plant
    --type pump --channel flow,L/min,0,200 --public-key 6b17d1...
    """
    from tools import devices

    result = run(
        devices.enroll(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            devices.enrolment(public_key, owner, device_type, board, channel),
        )
    )
    report(result, json_file)


@device_app.command("revoke")
def device_revoke(
    kid: Annotated[str, typer.Argument(help="Key id of the board, or of a member: 16 hex digits.")],
    founding: FoundingFile,
    key: OperatorKey,
    reason: Annotated[str, typer.Option(help="Why; goes on the chain.")],
    api: Api = None,
    json_file: JsonFile = None,
) -> None:
    """End the trust in a key: at once, and for good.

    Example: fogline device revoke 0123456789abcdef --founding founding.cbor
    --key plant/signing.key --reason "stolen"
    """
    from tools import devices

    result = run(
        devices.revoke(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            kid,
            reason,
        )
    )
    report(result, json_file)


@device_app.command("list")
def device_list(api: Api = None, json_file: JsonFile = None) -> None:
    """List the boards on the chain.

    Example: fogline device list --api http://127.0.0.1:7480
    """
    from fog_node.client import Client

    async def ask() -> Any:
        async with Client(api or [DEFAULT_API]) as client:
            return [device.model_dump() for device in await client.devices()]

    report({"devices": run(ask())}, json_file)


@train_app.command("anomaly")
def train_anomaly(
    founding: FoundingFile,
    out: Annotated[Path, typer.Option(help="Directory for model, report and plots.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    api: Api = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Collect what is sealed, and train an anomaly detector that boards run.

    Example: fogline train anomaly --founding founding.cbor --data dataset --device-type pump
    --out model --quick
    """
    from tools import training

    result = run(
        training.train_anomaly(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            training.Job(data, device_type, out, quick, seed),
            errors,
        )
    )
    report(result, json_file)


@evaluate_app.command("anomaly")
def evaluate_anomaly(
    founding: FoundingFile,
    model: Annotated[Path, typer.Option(help="Directory that training wrote.")],
    data: DatasetDirectory,
    device_type: DeviceType,
    labels: Annotated[
        Path | None, typer.Option(help='JSON {"key id": {"s since 1970": true}} of rows.')
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Directory for plots.")] = None,
    api: Api = None,
    json_file: JsonFile = None,
) -> None:
    """Repeat the boards' sealed verdicts with LiteRT, and score them where there are labels.

    Example: fogline evaluate anomaly --founding founding.cbor --data dataset --device-type pump
    --model model --labels labels.json
    """
    from tools import training

    result = run(
        training.evaluate_anomaly(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            training.Check(data, device_type, model, labels, plots),
        )
    )
    report(result, json_file)


@model_app.command("release")
def model_release(
    model: Annotated[Path, typer.Argument(help="Directory that training wrote.")],
    founding: FoundingFile,
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Signing key of a member who is trainer.")
    ],
    name: Annotated[str, typer.Option(help="Name of the release.")],
    overruled_by: Annotated[
        str | None, typer.Option(help="Member who accepts that int8 loses more than a point.")
    ] = None,
    api: Api = None,
    json_file: JsonFile = None,
) -> None:
    """Sign a model and release it to the boards of its device type.

    Example: fogline model release model --name anomaly --founding founding.cbor
    --key lab/signing.key
    """
    from tools import training

    result = run(
        training.release(
            api or [DEFAULT_API],
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            model,
            name,
            overruled_by,
        )
    )
    report(result, json_file)


@bench_app.command("pow")
def bench_pow(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Per kernel.")] = 2.0,
    kernel: Annotated[
        list[str] | None, typer.Option(help="A kernel to measure; repeatable. All by default.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the proof-of-work kernels against a hashlib loop.

    Example: fogline bench pow --seconds 5
    """
    from tools.bench import pow as bench

    bench.run(seconds, kernel, json_file)


@bench_app.command("inference")
def bench_inference(
    model: Annotated[Path, typer.Argument(help="A full-int8 .tflite file with one input.")],
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Inferences.")] = 200,
    json_file: JsonFile = None,
) -> None:
    """Measure the boards' interpreter against LiteRT's reference kernels in C.

    Example: fogline bench inference model/model.tflite
    """
    from tools.bench import inference as bench

    bench.run(model, runs, json_file)


@model_app.command("list")
def model_list(api: Api = None, json_file: JsonFile = None) -> None:
    """List the latest releases on the chain.

    Example: fogline model list --api http://127.0.0.1:7480
    """
    from fog_node.client import Client

    async def ask() -> Any:
        async with Client(api or [DEFAULT_API]) as client:
            return [release.model_dump() for release in await client.releases()]

    report({"releases": run(ask())}, json_file)


@proof_app.command("get")
def proof_get(
    transaction: Annotated[str, typer.Argument(help="Id of the transaction: 64 hex digits.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    api: Api = None,
) -> None:
    """Write the proof that a transaction is final.

    Example: fogline proof get 6e340b9c... --out reading.proof
    """
    from fog_node.client import Client

    try:
        identity = bytes.fromhex(transaction)
    except ValueError:
        identity = b""
    if len(identity) != TRANSACTION_ID_BYTES:
        raise UsageError(f"{transaction}: is not a transaction id; give its 64 hex digits")

    async def ask() -> bytes:
        async with Client(api or [DEFAULT_API]) as client:
            return await client.proof(identity)

    data = run(ask())
    write_out(out, data)
    report({"proof": str(out), "bytes": len(data)}, None)


@proof_app.command("verify")
def proof_verify(
    proof: Annotated[Path, typer.Argument(help="The proof file.")],
    founding: FoundingFile,
    json_file: JsonFile = None,
) -> None:
    """Check a proof with the founding file alone, offline, and show what it proves.

    Example: fogline proof verify reading.proof --founding founding.cbor
    """
    from tools import proofs

    report(proofs.verify(proof, founding), json_file)


def main() -> None:
    """Entry point: 0 done, 1 refused with a reason, 2 wrong usage."""
    try:
        app()
    except UsageError as error:
        errors.print(f"usage: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_USAGE)
    except (ToolError, FogNodeError, CloudError, ProtocolError) as error:
        errors.print(f"refused: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
