"""`fogline federated ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    Quick,
    Seed,
    errors,
    new_app,
    report,
    run,
)
from tools.federated_choices import Choices, Dealing, Parts
from tools.nodes import Nodes
from tools.options import with_fields

if TYPE_CHECKING:
    from cloud.federated.run_files import RoundRecord

app = new_app("Learn across sites; readings stay where they are. Needs the extra `federated`.")

Machines = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Machines that ran until they failed: a train_ file of C-MAPSS's format, or the "
        "folder of a subset.",
    ),
]
Member = Annotated[
    Path,
    typer.Option("--as", metavar="DIR", help="Yours, with tls.crt, tls.key, founding.cbor."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last round.")]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")]


def _check_split(split: str) -> None:
    if split not in {"random", "life"}:
        raise typer.BadParameter(f"--split {split}: give random or life")


def _run(
    data: Machines,
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE@FIRST[-LAST]", help="Kill a site's process for these rounds; repeatable."
        ),
    ] = None,
    resume: Resume = False,
    json_file: JsonFile = None,
    *,
    parts: Parts,
    choices: Choices,
) -> None:
    """Learn with a process for each site, all on this machine, over 127.0.0.1.

    Example: fogline federated run --sites 5 --data CMAPSSData/train_FD001.txt --out run
    --strategy trimmed-mean --json run.json
    """
    from tools import federated

    _check_split(parts.split)
    result = federated.run(data, out, choices, parts, drop or (), _tell, resume=resume)
    report(result, json_file)


app.command("run")(with_fields(with_fields(_run, "choices", Choices), "parts", Parts))


def _serve(
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="For the sites.")],
    member: Member,
    site: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="tls.crt of a member who may take part; repeatable."),
    ],
    dp_machines: Annotated[
        int | None, typer.Option(min=1, help="Machines of the smallest site: no secret then.")
    ] = None,
    resume: Resume = False,
    json_file: JsonFile = None,
    *,
    choices: Choices,
) -> None:
    """Lead a training whose sites are other members' fog nodes, over TLS.

    Example: fogline federated serve --out run --listen 0.0.0.0:9092 --as lab --site seoul.crt
    --site busan.crt --site daegu.crt --strategy trimmed-mean
    """
    from tools import federated

    result = federated.serve(out, choices, listen, member, site, dp_machines, _tell, resume=resume)
    report(result, json_file)


app.command("serve")(with_fields(_serve, "choices", Choices))


@app.command("site")
def federated_site(
    data: Machines,
    trainer: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where `serve` listens.")],
    member: Member,
    out: Annotated[Path, typer.Option(help="Directory for Flower's files and its log.")],
    least_noise: Annotated[
        float | None, typer.Option(min=1e-3, help="Refuse to learn with less noise.")
    ] = None,
    only_masked: Annotated[
        bool, typer.Option("--only-masked", help="Refuse to give updates that are not masked.")
    ] = False,
) -> None:
    """Take part with this fog node's own machines, until Ctrl-C.

    Example: fogline federated site --data ours/train_pumps.txt --trainer lab.example:9092
    --as busan --out federated
    """
    from tools import federated

    federated.take_part(data, trainer, member, out, least_noise, only_masked=only_masked)


@app.command("model")
def federated_model(
    directory: RunDirectory,
    data: Machines,
    out: Annotated[Path, typer.Option(help="Directory for the model.")],
    overruled_by: Annotated[
        str | None, typer.Option(help="Who accepts that int8 loses more than a cycle.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Make what a run has come to a model that fog nodes run: `fogline predict rul` takes it.

    Needs the extra `cloud`, where the run needs `federated`. --data are machines that no site
    learns from: the ranges of int8 and the width of the interval are measured on them.

    Example: fogline federated model run --data run/sites/held-out --out model
    """
    from cloud.federated.fog_model import make

    report(make(directory, data, out, overruled_by), json_file)


@app.command("record")
def federated_record(
    directory: RunDirectory,
    founding: FoundingFile,
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Signing key of a member who is trainer.")
    ],
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Put a run's rounds on the chain: who took part, and hashes. Again does no harm.

    Example: fogline federated record run --founding founding.cbor --key lab/signing.key
    """
    from tools import federated

    result = run(
        federated.record(
            Nodes.of(api, member),
            consortiums.load_founding(founding),
            consortiums.load_key(key),
            directory,
        )
    )
    report(result, json_file)


def _evaluate(
    data: Machines,
    out: Annotated[Path, typer.Option(help="Directory for runs and figures.")],
    quick: Quick = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
    *,
    dealing: Dealing,
) -> None:
    """Hold learning across sites against one place for all, and each site by itself.

    Judged by the subset's test_ and RUL_ files. One process; no network.

    Example: fogline federated evaluate --data CMAPSSData --out trials --json federated.json
    """
    from cloud.federated.trials import evaluate

    _check_split(dealing.split)
    with recorded.job(out, quick, seed, errors) as job:
        result = evaluate(data, job, dealing.sites, dealing.split)
    report(result, json_file)


app.command("evaluate")(with_fields(_evaluate, "dealing", Dealing))


def _tell(record: RoundRecord, rounds: int) -> None:
    said = f"round {record.round} of {rounds}: {len(record.sites)} sites"
    if record.absent:
        said += f", without {', '.join(record.absent)}"
    if record.rmse is not None:
        said += f", off by {record.rmse:.2f} cycles before it"
    if record.epsilon is not None:
        said += f", epsilon {record.epsilon:.3g} at delta {record.delta:g}"
    errors.print(said, highlight=False)
