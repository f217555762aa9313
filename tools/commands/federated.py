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
from tools.nodes import Nodes

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
Sites = Annotated[int, typer.Option(min=2, max=20, help="Among how many sites to deal them out.")]
Split = Annotated[
    str,
    typer.Option(help="How: random, or life (those that fail first go to the first site)."),
]


def _check_split(split: str) -> None:
    if split not in {"random", "life"}:
        raise typer.BadParameter(f"--split {split}: give random or life")


@app.command("run")
def federated_run(
    data: Machines,
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    sites: Sites = 5,
    split: Split = "random",
    strategy: Annotated[str, typer.Option(help="fedavg, trimmed-mean or krum.")] = "fedavg",
    liars: Annotated[
        int, typer.Option(min=0, help="Sites that may send anything; for the robust strategies.")
    ] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="In all.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, max=100, help="Of a site in a round.")] = 5,
    min_sites: Annotated[
        int | None, typer.Option(help="With fewer answers a round does not count.")
    ] = None,
    round_s: Annotated[float, typer.Option(min=1, help="How long a round may take.")] = 120.0,
    dp_noise: Annotated[
        float | None, typer.Option(min=1e-3, help="Noise on each step, in clips.")
    ] = None,
    dp_clip: Annotated[
        float | None, typer.Option(min=1e-9, help="What a machine may move a step by.")
    ] = None,
    dp_steps: Annotated[int, typer.Option(min=1, help="Steps of a round with noise.")] = 5,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE@FIRST[-LAST]", help="Kill a site's process for these rounds; repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last round.")] = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Learn with a process for each site, all on this machine, over 127.0.0.1.

    Example: fogline federated run --sites 5 --data CMAPSSData/train_FD001.txt --out run
    --strategy trimmed-mean --json run.json
    """
    from tools import federated

    _check_split(split)
    chosen = federated.Chosen(
        strategy, rounds, epochs, seed, sites, liars, min_sites, round_s, dp_noise, dp_clip,
        dp_steps, None,
    )  # fmt: skip
    result = federated.run(data, out, chosen, split, drop or (), _tell, resume=resume)
    report(result, json_file)


@app.command("serve")
def federated_serve(
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="For the sites.")],
    member: Annotated[
        Path,
        typer.Option("--as", metavar="DIR", help="Yours, with tls.crt, tls.key, founding.cbor."),
    ],
    site: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="tls.crt of a member who may take part; repeatable."),
    ],
    strategy: Annotated[str, typer.Option(help="fedavg, trimmed-mean or krum.")] = "fedavg",
    liars: Annotated[int, typer.Option(min=0, help="Sites that may send anything.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="In all.")] = 20,
    epochs: Annotated[int, typer.Option(min=1, max=100, help="Of a site in a round.")] = 5,
    min_sites: Annotated[
        int | None, typer.Option(help="With fewer answers a round does not count.")
    ] = None,
    round_s: Annotated[float, typer.Option(min=1, help="How long a round may take.")] = 600.0,
    dp_noise: Annotated[
        float | None, typer.Option(min=1e-3, help="Noise on each step, in clips.")
    ] = None,
    dp_clip: Annotated[
        float | None, typer.Option(min=1e-9, help="What a machine may move a step by.")
    ] = None,
    dp_steps: Annotated[int, typer.Option(min=1, help="Steps of a round with noise.")] = 5,
    dp_machines: Annotated[
        int | None, typer.Option(min=1, help="Machines of the smallest site: no secret then.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last round.")] = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Lead a training whose sites are other members' fog nodes, over TLS.

    Example: fogline federated serve --out run --listen 0.0.0.0:9092 --as lab --site seoul.crt
    --site busan.crt --site daegu.crt --strategy trimmed-mean
    """
    from tools import federated

    chosen = federated.Chosen(
        strategy, rounds, epochs, seed, len(site), liars, min_sites, round_s, dp_noise, dp_clip,
        dp_steps, dp_machines,
    )  # fmt: skip
    result = federated.serve(out, chosen, listen, member, site, _tell, resume=resume)
    report(result, json_file)


@app.command("site")
def federated_site(
    data: Machines,
    trainer: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where `serve` listens.")],
    member: Annotated[
        Path,
        typer.Option("--as", metavar="DIR", help="Yours, with tls.crt, tls.key, founding.cbor."),
    ],
    out: Annotated[Path, typer.Option(help="Directory for Flower's files and its log.")],
    least_noise: Annotated[
        float | None, typer.Option(min=1e-3, help="Refuse to learn with less noise.")
    ] = None,
) -> None:
    """Take part with this fog node's own machines, until Ctrl-C.

    Example: fogline federated site --data ours/train_pumps.txt --trainer lab.example:9092
    --as busan --out federated
    """
    from tools import federated

    federated.take_part(data, trainer, member, out, least_noise)


@app.command("record")
def federated_record(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")],
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


@app.command("evaluate")
def federated_evaluate(
    data: Machines,
    out: Annotated[Path, typer.Option(help="Directory for runs and figures.")],
    sites: Sites = 5,
    split: Split = "random",
    quick: Quick = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Hold learning across sites against one place for all, and each site by itself.

    Judged by the subset's test_ and RUL_ files. One process; no network.

    Example: fogline federated evaluate --data CMAPSSData --out trials --json federated.json
    """
    from cloud.federated.trials import evaluate

    _check_split(split)
    with recorded.job(out, quick, seed, errors) as job:
        result = evaluate(data, job, sites, split)
    report(result, json_file)


def _tell(record: RoundRecord, rounds: int) -> None:
    said = f"round {record.round} of {rounds}: {len(record.sites)} sites"
    if record.absent:
        said += f", without {', '.join(record.absent)}"
    if record.rmse is not None:
        said += f", off by {record.rmse:.2f} cycles before it"
    if record.epsilon is not None:
        said += f", epsilon {record.epsilon:.3g} at delta {record.delta:g}"
    errors.print(said, highlight=False)
