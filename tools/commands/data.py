"""`fogline data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    DatasetDirectory,
    Devices,
    DeviceType,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    NoLabels,
    Offline,
    Since,
    Until,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes

app = new_app("Data sets: collect, look at, ask, and bring in what is not sealed.")


@app.command("collect")
def data_collect(
    founding: FoundingFile,
    data: DatasetDirectory,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Collect what the data set lacks, every block checked, and show what it has then.

    With several --api, a node that lies, lags or falls silent is left for the next one.

    Example: fogline data collect --founding founding.cbor --data dataset
    --api http://127.0.0.1:7480 --api http://127.0.0.1:7481
    """
    from cloud.sources import open_source
    from tools import training

    run(training.update(Nodes.of(api, member), consortiums.load_founding(founding), data))
    report(open_source(data).describe(), json_file)


@app.command("show")
def data_show(
    path: Annotated[Path, typer.Argument(help="Data set, imported or not; file or folder.")],
    json_file: JsonFile = None,
) -> None:
    """Show what lies there, whether it is sealed, and how much of what it holds.

    Example: fogline data show dataset
    """
    from cloud.sources import open_source

    report(open_source(path).describe(), json_file)


@app.command("query")
def data_query(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data set, as it is.")],
    device_type: DeviceType,
    device: Devices = None,
    since: Since = None,
    until: Until = None,
    no_labels: NoLabels = False,
    height: Annotated[
        int | None, typer.Option(min=1, help="As was known after this block.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows: .csv or .parquet.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Ask a data set, and show the Merkle root that a release of it would name.

    Example: fogline data query --data dataset --device-type pump --since 2026-01-01T00:00:00Z
    --out rows.parquet
    """
    from dataclasses import replace

    from tools import data as data_sets
    from tools import training

    query = training.query(device_type, device, since, until, with_labels=not no_labels)
    report(run(data_sets.ask(data, replace(query, height=height), out)), json_file)


@app.command("images")
def data_images(
    images: Annotated[Path, typer.Argument(help="Folder with images.")],
    founding: FoundingFile,
    data: DatasetDirectory,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    offline: Offline = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Copy images into a folder for each class, by the labels that engineers have sealed of them.

    Images whose labels disagree are named and left out, as are those without any.

    Example: fogline data images photographs --founding founding.cbor --data dataset --out castings
    """
    from cloud.image_labels import sort_images
    from tools import training

    dataset = run(
        training.opened(
            Nodes.of(api, member), consortiums.load_founding(founding), data, offline=offline
        )
    )
    report(sort_images(images, dataset.labels(), out), json_file)


@app.command("import")
def data_import(
    files: Annotated[list[Path], typer.Argument(help="CSV files of one device, in order.")],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of what is not sealed; grows.")
    ],
    device_type: DeviceType,
    device: Annotated[str, typer.Option(help="Name of what the readings are of.")],
    time: Annotated[str, typer.Option(help="Column with the time: ISO 8601, or s since 1970.")],
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to take; repeatable. "
            "\\[all but time, --label, `anomaly` and `changepoint`]"
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of 0 and 1: whether a row is anomalous.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Between cells.")] = ",",
    utc: Annotated[bool, typer.Option("--utc", help="Times without a zone are UTC.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Bring in readings that no board has sealed, in the same layout, and marked as that.

    What is trained on them says so, and is not released to boards. The report names, of each
    file, the columns that were taken as channels and those that were left out.

    Example: fogline data import pump-1.csv --data imported --device-type pump --device "pump 1"
    --time timestamp
    """
    from cloud.imported import Columns, Imported
    from tools.errors import UsageError

    if len(delimiter) != 1:
        raise UsageError(f"--delimiter {delimiter!r}: give one character")
    columns = Columns(time, tuple(channel or ()), label, delimiter, utc)
    source = Imported.open(data)
    for file in files:
        source.add(file, device_type, device, columns)
    report(source.describe(), json_file)
