"""A site's half, as Flower starts it: a process for each message, beside the site's SuperNode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from cloud.train.rul_data import Units

from .masked import is_masked, take_part
from .messages import answer, asked, introduction
from .scales import Scales
from .site import Site, check_noise, read_site

app = ClientApp()


def _own(context: Context) -> tuple[str, Units]:
    """Name and machines of this site, from its SuperNode's configuration."""
    config = context.node_config
    return str(config["site"]), read_site(Path(str(config["data"])))


@app.query()  # type: ignore[untyped-decorator] # Flower is in an environment of its own
def query(message: Message, context: Context) -> Message:
    """Say who this is, and how its sensors are scaled."""
    name, units = _own(context)
    return Message(introduction(name, Scales.of(units)), reply_to=message)


@app.train()  # type: ignore[untyped-decorator] # Flower is in an environment of its own
def train(message: Message, context: Context) -> Message:
    """Learn from this site's machines, or do its next part in a sum under masks."""
    if is_masked(message):
        return take_part(message, context, _learn)
    if context.node_config.get("only-masked"):
        raise ValueError("this site gives its updates under masks only")
    return _learn(message, context)


def _learn(message: Message, context: Context) -> Message:
    name, units = _own(context)
    arrays, task, preparation = asked(message)
    least: Any = context.node_config.get("least-noise")
    check_noise(task, None if least is None else float(least))
    update = Site(name, units, preparation).work(arrays, task)
    return Message(answer(update.arrays, update.examples, update.rmse), reply_to=message)
