"""Training, prediction and evaluation on recordings: the tasks of `cloud.train`, by name."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from cloud.files import real_path
from cloud.inference.shares import Shares
from cloud.scale_out import workers
from cloud.train.job import Job, LabelSheet
from tools.errors import ToolError, UsageError
from tools.options import with_fields
from tools.outputs import check_directory


@dataclass(frozen=True)
class RecordedTask:
    """A task that learns from files.

    Attributes:
        name: as the command line has it.
        learns: what it learns, for the help.
        data: what `--data` is.
        example: of a file or folder for `--data`.
        predicts: what `predict` writes, a row each.
        settings: of its commands that have options of their own (`train`, `predict`, `evaluate`):
            the frozen dataclass they are given as, as "module:class" in `cloud.train`; its module
            is loaded for the help, so it must be quick to load.
        source: function that gives the file that `predict` reads, as "module:function".
        shares: what of it can be sealed; None: nothing, and `unshared` says why.
        labels: what an engineer's label of a thing can be, for the help; or why there is none.
        takes_labels: whether its training and its evaluation take such.
        spreads: whether it has parts that workers can do.
        measured_at_once: whether a model that was trained before is measured in so short a piece of
            work that there is nothing in it for `--quick` and `--workers`.
        judged_by: what of `--data` a model that was trained before is judged by, for the help.
        home: its module in `cloud.train`; None: is named like the task.
    """

    name: str
    learns: str
    data: str
    example: str
    predicts: str
    settings: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    shares: Shares | None = None
    unshared: str = ""
    labels: str = ""
    takes_labels: bool = False
    spreads: bool = False
    measured_at_once: bool = False
    judged_by: str = ""
    home: str | None = None

    def check_workers(self, where: str | None) -> None:
        """Raise UsageError where workers are asked for, and the task has nothing for them."""
        if where is not None and not self.spreads:
            names = ", ".join(task.name for task in TASKS if task.spreads)
            raise UsageError(f"--workers {where}: {self.name} trains in one piece, not so {names}")

    def check_model(self, model: Path | None, quick: bool, where: str | None) -> None:
        """Raise UsageError where a trained model is to be measured with what is for training."""
        if model is not None and self.measured_at_once:
            for name, is_given in (("--quick", quick), ("--workers", where is not None)):
                if is_given:
                    raise UsageError(f"{name}: is for training; --model trains nothing")

    def check_shares(self) -> None:
        """Raise UsageError where nothing that it predicts can be sealed."""
        if self.shares is None:
            raise UsageError(f"--seal: not for {self.name}: {self.unshared}")

    @property
    def labels_help(self) -> str:
        """What `--labels` is, for the help."""
        return f"{'columns ' if self.takes_labels else 'none; '}{self.labels}"

    def sheet(self, labels: Path | None, dataset: Path | None) -> LabelSheet | None:
        """The labels that are given, which members have to stand by in a data set if one is, too.

        Raises:
            UsageError: the task has no use for them, or there is a data set alone.
            LabelError: nobody stands by them. DatasetError.
        """
        if labels is None:
            if dataset is not None:
                raise UsageError("--dataset: is for --labels; give these, too")
            return None
        if not self.takes_labels:
            raise UsageError(f"--labels {labels}: {self.name} takes none: {self.labels}")
        if dataset is None:
            return LabelSheet(labels)
        from cloud.dataset import Dataset
        from cloud.train.table_labels import sealed_sheet

        return sealed_sheet(labels, Dataset.open(dataset).labels())

    def check_out(self, data: Path, out: Path) -> None:
        """Raise UsageError where what `predict` writes would stand where it reads."""
        read = real_path(self.source_of(data) if self.source else data)
        if real_path(out) == read or (read.is_dir() and real_path(out).is_relative_to(read)):
            raise UsageError(f"--out {out}: is among what is read; name a file elsewhere")

    def source_of(self, data: Path) -> Path:
        """The file that `predict` reads; raises RecordingError."""
        module, function = self.source.split(":")
        found: Path = getattr(import_module(f"cloud.train.{module}"), function)(data)
        return found

    def module(self) -> Any:
        """Load the task; takes a second or more, so only when it is to run."""
        return import_module(f"cloud.train.{self.home or self.name}")

    def with_options(self, command: str, function: Callable[..., None]) -> Callable[..., None]:
        """Give a command the task's own options.

        Args:
            command: `train`, `predict` or `evaluate`.
            function: takes `settings`, keywords for the task's function: none, or `settings`.

        Returns:
            The same without `settings`, but with an option for each field of the task's settings,
            whose metadata says how: `help`, `min`, `max`.
        """

        @wraps(function)
        def run(*, settings: Any, **arguments: Any) -> None:
            function(**arguments, settings={"settings": settings} if settings else {})

        return with_fields(run, "settings", self._settings(command))

    def _settings(self, command: str) -> Any:
        if command not in self.settings:
            return None
        module, name = self.settings[command].split(":")
        return getattr(import_module(f"cloud.train.{module}"), name)


TASKS = (
    RecordedTask(
        "failure",
        "whether a machine fails, and how",
        "CSV file of the AI4I 2020 format, or the folder with ai4i2020.csv in it.",
        "ai4i2020.csv",
        "probability, decision and likeliest mode of each row",
        source="failure_data:source",
        shares=Shares("id", "probability", "mode"),
        labels="id, and in value normal, failure, or how it failed: TWF, HDF, PWF or OSF",
        takes_labels=True,
        spreads=True,
        measured_at_once=True,
        judged_by="the rows that it has not learned from",
    ),
    RecordedTask(
        "rul",
        "how many cycles a machine has left before it fails",
        "folder with the files of one subset of C-MAPSS, or one of them; predict takes any file "
        "of the format.",
        "CMAPSSData/train_FD001.txt",
        "cycles left of each unit at its last row, and the interval in which 90 % of true values "
        "lie",
        source="rul:source",
        shares=Shares("unit", "left"),
        labels="unit, and in value the cycle at which it failed, or running",
        takes_labels=True,
        spreads=True,
        measured_at_once=True,
        judged_by="the test_ file of any subset, with its RUL_ file",
    ),
    RecordedTask(
        "quality",
        "whether a piece is defective, and where",
        "folder with a folder of images (PNG, JPEG, BMP) for each class: one of good pieces, the "
        "others of what is wrong; or `train` and `test` with such folders. predict takes one "
        "image or any folder of images.",
        "casting",
        "probability of a defect and verdict of each image",
        {
            "train": "quality_settings:FolderSettings",
            "predict": "quality_settings:PredictSettings",
            "evaluate": "quality_settings:EvaluateSettings",
        },
        unshared="`fogline fog infer` seals what a model says of images",
        labels="an image's label is the folder it lies in; `fogline data images` puts it there",
        spreads=True,
        judged_by="all images, of which near-duplicates of learned ones are counted",
    ),
    RecordedTask(
        "demand",
        "how many of each spare part are asked for, month by month",
        "CSV file of the carparts format, a row per part, or the folder with it in it.",
        "carparts.csv",
        "mean, quantiles, reorder point and order quantity of each part and month ahead",
        {
            "predict": "stock_settings:PredictSettings",
            "evaluate": "stock_settings:StockSettings",
        },
        source="demand_data:source",
        shares=Shares("part", "mean", adds=True),
        labels="demand is counted, not judged; what was counted wrongly is corrected in the table",
        spreads=True,
        measured_at_once=True,
        judged_by="the months after the last one that it has learned from, 12 at most",
    ),
)


# Its commands take sealed readings as well, so they are written out beside the others.
ANOMALY = RecordedTask(
    "anomaly",
    "what is not normal in the readings of several sensors",
    "folder of experiments in the format of SKAB, or one of its CSV files: columns `anomaly` are "
    "labels, files without it are normal operation. Or a file of the Numenta Anomaly Benchmark, "
    "to evaluate with combined_windows.json beside it.",
    "SKAB/data",
    "score and verdict of each window, at the line of its last row, and in anomaly_told_later what "
    "is said of that line half a window later",
    unshared="boards seal their verdicts themselves, in their packs",
    home="anomaly_recorded",
)


def check_measured_apart(out: Path, model: Path | None) -> None:
    """Raise UsageError where what `evaluate` writes would stand among a trained model's files.

    Args:
        out: directory for plots and the result.
        model: that is to be measured, if one is.
    """
    from cloud.model_files import is_model

    inside = model is not None and real_path(out).is_relative_to(real_path(model))
    if inside or is_model(out):
        raise UsageError(
            f"--out {out}: is the directory of a model, whose plots it would replace; name another"
        )


@contextmanager
def job(
    out: Path,
    quick: bool,
    seed: int,
    console: Console,
    where: str | None = None,
    labels: LabelSheet | None = None,
    model: Path | None = None,
) -> Iterator[Job]:
    """Make a job whose progress is a bar on a terminal, and lines elsewhere.

    Args:
        out, quick, seed, labels, model: of the job.
        console: for the progress.
        where: workers, as `cloud.scale_out.workers` takes them.

    Raises:
        ToolError: nothing can be written to `out`, which is said before the work, or its disk has
            become full.
    """
    check_directory("--out", out)
    is_new = not out.exists()
    with Progress(console=console, transient=True) as bar, workers(where) as pool:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)
            if not console.is_terminal:
                console.print(f"{what} {done}/{of}", highlight=False)

        try:
            yield Job(out, quick, seed, show, pool, labels, model)
        except BaseException as error:
            if is_new:
                with suppress(OSError):  # what it has in it may be wanted
                    out.rmdir()
            if not isinstance(error, OSError) or error.errno != errno.ENOSPC:
                raise
            raise ToolError(
                f"--out {out}: {error.strerror}; make room, or name a directory on another disk"
            ) from error
