"""`fogline request ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools import consortium as consortiums
from tools.commands.common import (
    Api,
    FoundingFile,
    JsonFile,
    MemberDirectory,
    new_app,
    report,
    run,
)
from tools.errors import UsageError
from tools.nodes import Nodes

app = new_app("Ask for services as a customer, and answer as a provider.")

RequestId = Annotated[str, typer.Argument(help="Id of the request: 64 hex digits.")]


@app.command("send")
def request_send(
    founding: FoundingFile,
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Signing key of a member who is customer.")
    ],
    service: Annotated[str, typer.Option(help="What is asked for, by a short name.")],
    content: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The particulars, at most 1 MiB.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="The particulars, as text.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Name or key id of who is asked; else any provider.")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.001, max=24 * 366, help="How long an answer is in time.")
    ] = 24.0,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Send a request, and wait until it is final.

    Example: fogline request send --founding founding.cbor --key buyer/signing.key --as buyer
    --service casting --provider foundry --content drawing.pdf --api https://fog1.example:7480
    """
    from tools import requests

    if (content is None) == (text is None):
        raise UsageError("--content, --text: give exactly one of them")
    data = requests.read_content(content) if content is not None else (text or "").encode()
    sender = requests.Sender(
        Nodes.of(api, member), consortiums.load_founding(founding), consortiums.load_key(key)
    )
    report(run(requests.send(sender, service, provider, data, hours)), json_file)


@app.command("answer")
def request_answer(
    request: RequestId,
    founding: FoundingFile,
    key: Annotated[
        Path, typer.Option(metavar="FILE", help="Signing key of a member who is provider.")
    ],
    outcome: Annotated[str, typer.Option(help="accepted, declined, done or failed.")],
    content: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What comes with it, at most 1 MiB.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Answer a request, and wait until the answer is final.

    Example: fogline request answer 6e340b9c... --outcome done --content report.pdf
    --founding founding.cbor --key foundry/signing.key --as foundry --api https://fog1.example:7480
    """
    from tools import requests

    data = None if content is None else requests.read_content(content)
    sender = requests.Sender(
        Nodes.of(api, member), consortiums.load_founding(founding), consortiums.load_key(key)
    )
    report(run(requests.answer(sender, requests.read_id(request), outcome, data)), json_file)


@app.command("list")
def request_list(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, latest first.")] = 50,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """List the requests that are open to you, and what came of them.

    Example: fogline request list --as foundry --api https://fog1.example:7480
    """
    from tools import requests

    report({"requests": run(requests.listing(Nodes.of(api, member), limit))}, json_file)


@app.command("show")
def request_show(
    request: RequestId,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save the contents in this directory.")
    ] = None,
    api: Api = None,
    member: MemberDirectory = None,
    json_file: JsonFile = None,
) -> None:
    """Show a request and its answers, and whether those came in time.

    Example: fogline request show 6e340b9c... --out ./order --as buyer
    --api https://fog1.example:7480
    """
    from tools import requests

    report(run(requests.show(Nodes.of(api, member), requests.read_id(request), out)), json_file)
