"""`fogline label ...`."""

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
    Offline,
    Since,
    Until,
    new_app,
    report,
    run,
)
from tools.nodes import Nodes
from tools.outputs import write_out

app = new_app("Label readings and images: signed, on the chain.")

LabellerKey = Annotated[
    Path,
    typer.Option("--key", metavar="FILE", help="Signing key of a member: trainer or operator."),
]
Note = Annotated[str, typer.Option(help="Why, in words; at most 200 characters.")]


@app.command("add")
def label_add(
    founding: FoundingFile,
    key: LabellerKey,
    value: Annotated[
        str | None, typer.Option(help="normal, anomaly, or the name of a class.")
    ] = None,
    take_back: Annotated[
        bool, typer.Option("--take-back", help="Instead of a value: what you said no longer holds.")
    ] = False,
    device: Annotated[str | None, typer.Option(metavar="KID", help="Key id of a board.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First row: ISO 8601, or s.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Last row: ISO 8601, or s.")
    ] = None,
    packs: Annotated[
        str | None, typer.Option(metavar="A-B", help="Numbers of the board's packs instead.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An image, which goes nowhere.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Or its SHA-256.")] = None,
    note: Note = "",
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Say what a board's rows, or an image, are. Whoever said else of the same before is corrected.

    Example: fogline label add --founding founding.cbor --key lab/signing.key
    --device 0123456789abcdef --from 2026-01-01T12:00:00Z --until 2026-01-01T12:10:00Z
    --value "valve closed"
    """
    from tools import labels
    from tools.errors import UsageError

    if (value is None) != take_back:
        raise UsageError("--value, --take-back: give exactly one of them")
    target = labels.target_of(device, since, until, packs, image, sha256)
    body = labels.body_of(target, value, note)
    sender = labels.Sender(
        Nodes.of(api, member), consortiums.load_founding(founding), consortiums.load_key(key)
    )
    report(run(labels.send(sender, body.labels, note)), json_file)


@app.command("import")
def label_import(
    file: Annotated[Path, typer.Argument(help="CSV; see below.")],
    founding: FoundingFile,
    key: LabellerKey,
    note: Note = "",
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Send the labels of a CSV file: a column value, and those that name what is labelled.

    These are device, from, until (times with their zone, or s since 1970); or device, first, last
    (numbers of the board's packs); or image (a SHA-256, or a file beside the CSV). Rows without a
    value are left out, so that proposals may be answered in part; the value - takes back.

    Example: fogline label import proposals.csv --founding founding.cbor --key lab/signing.key
    """
    from cloud.label_files import read_labels
    from tools import labels

    listed = read_labels(file)
    sender = labels.Sender(
        Nodes.of(api, member), consortiums.load_founding(founding), consortiums.load_key(key)
    )
    report(run(labels.send(sender, listed, note)), json_file)


@app.command("list")
def label_list(
    founding: FoundingFile,
    data: DatasetDirectory,
    device: Annotated[
        str | None, typer.Option(metavar="KID", help="Of this board's readings only.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest.")] = 50,
    offline: Offline = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """List labels, latest first, and how each stands: disputed, superseded, taken back.

    Example: fogline label list --founding founding.cbor --data dataset
    """
    from fog_node.protocol.keys import parse_kid
    from tools import labels, training

    dataset = run(
        training.opened(
            Nodes.of(api, member), consortiums.load_founding(founding), data, offline=offline
        )
    )
    kid = None if device is None else parse_kid(device)
    report(labels.listing(dataset, kid, limit), json_file)


@app.command("show")
def label_show(
    label: Annotated[str, typer.Argument(help="Id of the transaction: 64 hex digits.")],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Show what one transaction of labels says, and who says it.

    Example: fogline label show 0123...
    """
    from tools import labels
    from tools.requests import read_id

    report(run(labels.show(Nodes.of(api, member), read_id(label))), json_file)


@app.command("propose-images")
def label_propose_images(
    predictions: Annotated[Path, typer.Argument(help="CSV that `fogline predict` wrote.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder its paths begin from.")],
    founding: FoundingFile,
    data: DatasetDirectory,
    image_column: Annotated[str, typer.Option(help="Column with the image's path.")] = "file",
    probability_column: Annotated[
        str, typer.Option(help="Column with the probability of one of two classes.")
    ] = "probability",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV to fill in, for `label import`.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many images.")] = 20,
    offline: Offline = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Propose which images to label next: those that a model is least sure of, without a label.

    Example: fogline label propose-images predictions.csv --images castings --founding founding.cbor
    --data dataset --out proposals.csv
    """
    from cloud.image_labels import propose_images
    from cloud.label_files import proposals_csv
    from tools import training

    dataset = run(
        training.opened(
            Nodes.of(api, member), consortiums.load_founding(founding), data, offline=offline
        )
    )
    columns = (image_column, probability_column)
    chosen = propose_images(predictions, images, dataset.labels(), count, columns)
    rows = [proposal.row() for proposal in chosen]
    if out is not None:
        write_out(out, proposals_csv(rows).encode())
    report({"proposals": rows}, json_file)


@app.command("propose")
def label_propose(
    founding: FoundingFile,
    data: DatasetDirectory,
    device_type: DeviceType,
    model: Annotated[Path, typer.Option(help="Directory that training wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV to fill in, for `label import`.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many windows.")] = 20,
    of_boards: Annotated[
        bool, typer.Option("--board-scores", help="Boards' sealed scores instead of LiteRT's.")
    ] = False,
    device: Devices = None,
    since: Since = None,
    until: Until = None,
    offline: Offline = False,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Propose what to label next: windows that the model is least sure of, of all boards and times.

    Example: fogline label propose --founding founding.cbor --data dataset --device-type pump
    --model model --out proposals.csv
    """
    from cloud.label_files import proposals_csv
    from tools import labels, training

    query = training.query(device_type, device, since, until)
    dataset = run(
        training.opened(
            Nodes.of(api, member), consortiums.load_founding(founding), data, offline=offline
        )
    )
    rows = run(labels.propose(dataset, labels.Wanted(query, model, count, of_boards)))
    if out is not None:
        write_out(out, proposals_csv(rows).encode())
    report({"proposals": rows}, json_file)
