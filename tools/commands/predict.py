"""`fogline predict ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tools import consortium as consortiums
from tools import recorded
from tools.commands.common import (
    Api,
    JsonFile,
    MemberDirectory,
    Recordings,
    new_app,
    report,
    run,
)
from tools.errors import UsageError
from tools.nodes import Nodes
from tools.outputs import check_output

JOURNAL = Path("predictions.journal")

app = new_app("Let a trained model say what it thinks of recordings, and others know it.")


@app.command("list")
def predict_list(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUBJECT]",
            help="A thing's name, or how an image's SHA-256 or a board's key id begins. \\[all]",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its name, or how its SHA-256 begins. \\[all]")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=10_000, help="At most so many, latest first.")
    ] = 20,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """List what models have said, of things and of images, from the chain.

    Example: fogline predict list 17 --model turbines --api http://127.0.0.1:7480
    """
    from tools import sharing

    async def ask() -> list[dict[str, Any]]:
        async with Nodes.of(api, member).client() as client:
            return await sharing.sealed_predictions(client, subject, model, count)

    report({"predictions": run(ask())}, json_file)


def _add(task: recorded.RecordedTask) -> None:
    def predict(
        model: Annotated[Path, typer.Option(metavar="DIR", help="What `train` wrote.")],
        data: Recordings,
        out: Annotated[Path, typer.Option(metavar="FILE", help="CSV file to write.")],
        seal: Annotated[
            bool, typer.Option("--seal", help="Put it on the chain, each thing of a file once.")
        ] = False,
        founding: Annotated[
            Path | None, typer.Option(metavar="FILE", help="To seal: the founding file.")
        ] = None,
        key: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="To seal: key of a member, gateway or trainer."),
        ] = None,
        journal: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE", help=f"To seal: notes what is, over restarts. \\[{JOURNAL}]"
            ),
        ] = None,
        api: Api = None,
        member: MemberDirectory = None,
        json_file: JsonFile = None,
        *,
        settings: dict[str, Any],
    ) -> None:
        check_output(out)
        task.check_out(data, out)
        if not seal:
            if founding or key or journal or api:
                raise UsageError(
                    "--founding, --key, --journal, --api: are for --seal; give that, too"
                )
            report(task.module().predict(model, data, out, **settings), json_file)
            return
        task.check_shares()
        if founding is None or key is None:
            raise UsageError("--seal: needs --founding and --key")
        from tools import sharing

        result = run(
            sharing.predict_and_seal(
                Nodes.of(api, member),
                consortiums.load_founding(founding),
                consortiums.load_key(key),
                JOURNAL if journal is None else journal,
                sharing.Asked(task, model, data, out, settings),
            )
        )
        report(result, json_file)

    app.command(
        task.name,
        help=f"Write {task.predicts}, as CSV.\n\n--data: {task.data}"
        f"\n\nExample: fogline predict {task.name} "
        f"--model model --data {task.example} --out predictions.csv",
    )(task.with_options("predict", predict))


for _task in (recorded.ANOMALY, *recorded.TASKS):
    _add(_task)
