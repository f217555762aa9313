"""`fogline fog ...`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.inference.heatmaps import KEPT
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    new_app,
    progress,
    report,
    run,
    say,
)
from tools.consortium import load_founding, load_key
from tools.errors import ToolError
from tools.nodes import Nodes

app = new_app("Set up, run and look at a fog node.")


@app.command("init")
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
    api_tls: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the API here, over TLS, to members; else without, to this machine only.",
        ),
    ] = None,
) -> None:
    """Write a configuration that holds every key with its meaning, and a systemd unit.

    Example: fogline fog init --member seoul --founding founding.cbor --keys ./seoul
    --peer busan=fog2.example:7420 --broker broker.example:8883 --out /etc/fogline
    """
    from tools import fog

    overrides = fog.overrides(peer or [], broker, api_tls)
    configuration, unit = fog.init(
        out, member, founding, keys, data_dir=data_dir, overrides=overrides
    )
    report({"configuration": str(configuration), "systemd_unit": str(unit)}, None)


@app.command("run")
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


@app.command("status")
def fog_status(api: Api = None, member: MemberDirectory = None, json_file: JsonFile = None) -> None:
    """Say how a fog node is doing.

    Example: fogline fog status --api http://127.0.0.1:7480
    """
    nodes = Nodes.of(api, member)

    async def ask() -> Any:
        async with nodes.client() as client:
            return (await client.status()).model_dump()

    report(run(ask()), json_file)


ConfigFile = Annotated[Path, typer.Option(metavar="FILE", help="The node's fog.toml.")]


@app.command("verify")
def fog_verify(config: ConfigFile = Path("fog.toml"), json_file: JsonFile = None) -> None:
    """Look through all that a node's ledger has on disk; the node may run meanwhile.

    Every page, every block with its certificate, every transaction and every row of the index is
    compared with what it must be. Exits with 1 and names what is damaged.

    Example: fogline fog verify --config /etc/fogline/fog.toml
    """
    from tools import ledger_care

    with progress("blocks") as tell:
        result = ledger_care.verify(config, tell)
    report(result, json_file)


@app.command("repair")
def fog_repair(
    config: ConfigFile = Path("fog.toml"),
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL|NAME",
            help="A node's API, or a member of \\[peer] peers; repeatable. "
            "\\[all of \\[peer] peers]",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Begin with a checkpoint, where nobody keeps the oldest blocks.",
        ),
    ] = None,
    forget_votes: Annotated[
        bool,
        typer.Option(
            help="Vote again although nobody can tell what this validator voted; with a new ledger "
            "too. Only where no other node has seen its votes: two votes at one height are "
            "evidence against it."
        ),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Make a damaged ledger whole; stop the node first.

    Keeps the damaged files aside, builds the ledger anew from the blocks that are sound, and
    fetches those that are not from other nodes. Where own votes may be lost, this validator
    abstains until the others have gone beyond the height where it can have voted.

    Example: fogline fog repair --config /etc/fogline/fog.toml --from https://fog2.example:7480
    """
    from tools import ledger_care

    with progress("blocks") as tell:
        result = ledger_care.repair(
            config,
            source or [],
            checkpoint=checkpoint,
            forget_votes=forget_votes,
            progress=tell,
        )
    report(result, json_file)


@app.command("prune")
def fog_prune(
    config: ConfigFile = Path("fog.toml"),
    keep: Annotated[
        str | None, typer.Option(metavar="DAYS", help="As in 90d. [\\[storage] keep_days]")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where they go, as Parquet. [\\[storage] archive]"),
    ] = None,
    discard: Annotated[bool, typer.Option(help="Drop them for good.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Let go of the bodies of old blocks, so that the disk shrinks; stop the node first.

    Headers, certificates, index and state stay, and so do enrolments. Proofs that were made stay
    valid; those of what went are made from the archive: fogline proof get --archive DIR. A node
    that runs does this by itself where its configuration sets keep_days.

    Example: fogline fog prune --config /etc/fogline/fog.toml --keep 90d --archive /mnt/archive
    """
    from tools import ledger_care

    with progress("blocks") as tell:
        result = ledger_care.prune(config, keep, archive, discard=discard, progress=tell)
    report(result, json_file)


@app.command("checkpoint")
def fog_checkpoint(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    config: ConfigFile = Path("fog.toml"),
    json_file: JsonFile = None,
) -> None:
    """Write what a new node can begin with: the latest block, the state after it, the way to it.

    The founding file alone verifies it. The node may run meanwhile.

    Example: fogline fog checkpoint --config /etc/fogline/fog.toml --out plant.checkpoint
    """
    from tools import ledger_care

    report(ledger_care.checkpoint(config, out), json_file)


@app.command("join")
def fog_join(
    checkpoint: Annotated[
        str, typer.Option(metavar="FILE|URL", help="A checkpoint, or the API of a node.")
    ],
    config: ConfigFile = Path("fog.toml"),
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL|NAME",
            help="Nodes that say how far the chain is; repeatable. All of the section peer.",
        ),
    ] = None,
    forget_votes: Annotated[
        bool,
        typer.Option(help="Vote at once; only for a validator that has never run before."),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Begin the ledger of a new node with a checkpoint, checked with the founding file alone.

    The blocks before it are never here: proofs of what they hold come from nodes that keep all.
    A validator abstains until the others are beyond where it can have voted.

    Example: fogline fog join --config /etc/fogline/fog.toml --checkpoint plant.checkpoint
    """
    from tools import ledger_care

    result = ledger_care.join(config, checkpoint, source or [], forget_votes=forget_votes)
    report(result, json_file)


@app.command("infer")
def fog_infer(
    watch: Annotated[
        list[str],
        typer.Option(
            metavar="FOLDER=MODEL",
            help="Folder of images, and the directory of a model that judges them; repeatable.",
        ),
    ],
    founding: FoundingFile,
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Signing key of a member who is gateway or trainer."),
    ],
    journal: Annotated[
        Path, typer.Option(metavar="FILE", help="What was judged and what of it is sealed.")
    ] = Path("infer.journal"),
    variant: Annotated[str, typer.Option(help="Which of the model's networks judges.")] = "fog",
    once: Annotated[
        bool, typer.Option("--once", help="End when all that is there is judged and sealed.")
    ] = False,
    heatmaps: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write a PNG file of each image that is not normal: where."
        ),
    ] = None,
    heatmaps_kept: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="So many at most, the latest.")
    ] = KEPT,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Let models judge the images that come into folders, and seal what they say, until Ctrl-C.

    An image is known by its content and judged once by each model. Damaged files are told and left
    alone. What is judged is kept in the journal until it is final, however often this is ended.

    Example: fogline fog infer --watch /var/spool/camera=castings --founding founding.cbor
    --key plant/signing.key
    """
    try:
        from tools import inference
    except ModuleNotFoundError as error:
        raise ToolError(
            f"{error.name} is not installed; pip install '.[inference]' in Fogline's folder"
        ) from error

    duty = inference.Duty(watch, variant, journal, once, heatmaps, heatmaps_kept)
    nodes, file, owner = Nodes.of(api, member), load_founding(founding), load_key(key)
    report(run(inference.infer(nodes, file, owner, duty, say)), json_file)
