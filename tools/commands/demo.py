"""`fogline demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tools.commands.common import (
    JsonFile,
    console,
    report,
    run,
)
from tools.errors import ToolError, UsageError


class Transport(StrEnum):
    """How boards reach their gateways."""

    MQTT = "mqtt"
    SERIAL = "serial"


class Target(StrEnum):
    """What a board is."""

    UNIX = "unix"
    QEMU_ARM = "qemu-arm"
    QEMU_RV32 = "qemu-rv32"


class Scenario(StrEnum):
    """What the boards are at."""

    TESTBED = "testbed"
    VEHICLES = "vehicles"


def demo(
    scenario: Annotated[
        Scenario,
        typer.Option(help="Water-circulation test beds, or a car maker's plants and its fleet."),
    ] = Scenario.TESTBED,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "--keep", help="Working folder, kept; else a temporary one."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=60, help="How many boards, or cars.  \\[default: 4, or 24]"),
    ] = None,
    weeks: Annotated[
        int | None, typer.Option(min=3, max=12, help="Of the cars.  \\[default: 4]")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="Folder of CSV recordings, SKAB's or carOBD's format; else simulated."),
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
    transport: Annotated[
        Transport, typer.Option(help="How boards reach their gateways.")
    ] = Transport.MQTT,
    target: Annotated[
        Target,
        typer.Option(help="What the last board is; under QEMU with --transport serial alone."),
    ] = Target.UNIX,
    chaos: Annotated[
        bool,
        typer.Option(
            "--chaos",
            help="SIGKILL a validator and the own broker mid-stream, or pull every serial cable.",
        ),
    ] = False,
    rate: Annotated[
        float, typer.Option(metavar="HZ", min=0, help="Rows per second and board; 0: no limit.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the simulated test bed and the training.")] = 7,
    json_file: JsonFile = None,
) -> None:
    """Run the whole loop on this machine: boards, five fog nodes, training, verdicts, proofs.

    Example: fogline demo --replay ./skab --chaos --json demo.json

    Example: fogline demo --scenario vehicles --keep ./fleet; then open fleet/report.html
    """
    if scenario is Scenario.VEHICLES:
        if chaos or rate or broker is not None or transport is not Transport.MQTT:
            raise UsageError("--chaos, --rate, --broker, --transport: go with --scenario testbed")
        if target is not Target.UNIX:
            raise UsageError("--target: goes with --scenario testbed")
        _vehicles(directory, devices, weeks, replay, seed, json_file)
        return
    if weeks is not None:
        raise UsageError("--weeks: goes with --scenario vehicles")
    from fog_node.config import split_address
    from tools.demo.fleet import ExternalBroker
    from tools.demo.run import DEFAULT_DEVICES, MAX_DEVICES, Options
    from tools.demo.run import run as run_demo

    devices = DEFAULT_DEVICES if devices is None else devices
    if devices > MAX_DEVICES:
        raise UsageError(f"--devices {devices}: at most {MAX_DEVICES} test beds")
    external = None
    if broker is not None:
        try:
            host, port = split_address(broker)
        except ValueError as error:
            raise UsageError(f"--broker {error}") from error
        external = ExternalBroker(host, port, broker_ca, broker_username, broker_password_file)
    elif broker_ca or broker_username or broker_password_file:
        raise UsageError("--broker-ca, --broker-username and --broker-password-file need --broker")
    if external is not None and transport is Transport.SERIAL:
        raise UsageError("--broker goes with --transport mqtt")
    if target is not Target.UNIX and (transport is not Transport.SERIAL or replay is not None):
        raise UsageError(
            f"--target {target.value} has a serial line and no files of this machine: "
            "give --transport serial, and no --replay"
        )
    options = Options(
        directory, devices, replay, external, chaos, rate, seed, transport.value, target.value
    )
    summary = run(run_demo(options, console))
    report(summary, json_file)
    if summary["failures"]:
        raise ToolError("the demo does not hold: " + "; ".join(summary["failures"]))


def _vehicles(
    directory: Path | None,
    cars: int | None,
    weeks: int | None,
    replay: Path | None,
    seed: int,
    json_file: Path | None,
) -> None:
    from tools.demo.vehicles.plan import DEFAULT_CARS, DEFAULT_WEEKS
    from tools.demo.vehicles.promises import outline
    from tools.demo.vehicles.run import Options
    from tools.demo.vehicles.run import run as run_vehicles

    options = Options(directory, cars or DEFAULT_CARS, weeks or DEFAULT_WEEKS, replay, seed)
    summary = run(run_vehicles(options, console))
    report(summary, json_file, show=False)
    report(outline(summary), None)
    if summary["failures"]:
        raise ToolError("the demo does not hold: " + "; ".join(summary["failures"]))
