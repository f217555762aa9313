"""Options of several commands that are said once: the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer


def with_fields(function: Callable[..., None], name: str, kind: Any) -> Callable[..., None]:
    """Give a command an option for each field of a dataclass.

    Args:
        function: takes `name`: one of `kind`, or None.
        name: of that parameter, which is no option itself.
        kind: the frozen dataclass; the metadata of its fields is what `typer.Option` takes, and
            a flag's own `names`, without which there is its opposite, too. None: no options.

    Returns:
        The same without `name`, but with the options, after its own.
    """
    given = inspect.signature(function, eval_str=True).parameters.values()
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in given if each.name != name
    ]
    hints = get_type_hints(kind) if kind else {}
    parameters += [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=item.default,
            annotation=Annotated[hints[item.name], _option(**item.metadata)],
        )
        for item in (fields(kind) if kind else ())
    ]

    def run(**arguments: Any) -> None:
        chosen = {field: arguments.pop(field) for field in hints}
        function(**arguments, **{name: kind(**chosen) if kind else None})

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = function.__doc__
    return run


def _option(*, names: tuple[str, ...] = (), **more: Any) -> Any:
    return typer.Option(*names, **more)
