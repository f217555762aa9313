"""Errors of the cloud side; each message says where, what, and what to do about it.

CloudError
├── ChainError        a block that a node gave does not hold
├── DatasetError      the data set cannot be read or written, or lacks what was asked for
├── ExportError       a model cannot be run by the boards it is for
├── JournalError      a journal of verdicts cannot be used
│   └── JournalFullError  there is no room on its disk
├── LabelError        a file of labels is not as it must be
├── MissingExtraError what was asked for needs a package that is not installed
├── ModelError        a trained model's directory is not one, or another task's
├── RecordingError    a CSV recording is not as it must be
├── ReleaseError      a model cannot be released as it is
├── StalledError      a node says that it has more blocks, and gives none
└── TrainingError     there is too little, or nothing fit, to train on
"""

from __future__ import annotations

from typing import Any


class CloudError(Exception):
    """Base of everything that the cloud side raises by itself.

    Attributes:
        problem: where and what.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come from workers as they were, whatever their `__init__` asks for."""
        return type(self).__new__, (type(self), *self.args), vars(self)


class ChainError(CloudError):
    """A block, or its certificate, is not what the founding file and its ancestors demand.

    Attributes:
        height: at which it was given.
    """

    def __init__(self, height: int, problem: str) -> None:
        super().__init__(
            f"block {height}: {problem}",
            "do not trust the node that gave it, and collect from another one; what was "
            "written before still holds",
        )
        self.height = height


class DatasetError(CloudError):
    """The data set cannot be read or written, or does not hold what was asked for."""


class ExportError(CloudError):
    """A trained model is not one that boards can run."""


class JournalError(CloudError):
    """A journal of verdicts is another worker's, or damaged."""


class JournalFullError(JournalError):
    """The disk has no room for a journal; what was noted before still stands."""


class LabelError(CloudError):
    """A file of labels, or an image that one is to be of, is not as it must be."""


class StalledError(CloudError):
    """A node says that it has more blocks than it gives."""


class MissingExtraError(CloudError):
    """A package is not installed that only some need.

    Attributes:
        extra: of Fogline, with which it comes.
    """

    def __init__(self, what: str, extra: str, constraints: str = "requirements.txt") -> None:
        super().__init__(
            f"{what} is not installed",
            f"install Fogline with its extra `{extra}`: pip install -c {constraints} '.[{extra}]'",
        )
        self.extra = extra


class TrainingError(CloudError):
    """The data is not enough, or not fit, for the task."""


class ModelError(CloudError):
    """The directory of a trained model cannot be read, or is not what was asked for."""


class RecordingError(CloudError):
    """A CSV recording is unreadable, incomplete or too large."""


class ReleaseError(CloudError):
    """A model, or its card, cannot be released as it is."""
