"""Where the parts of a training are done: here one after the other, or by Ray's workers.

Parts say nothing to one another and are put together in their order, so a model is the same
wherever they were done. What all of them read is sent to each machine once; files that a part loads
it reads where it is done. A part whose worker is killed is done again by another one.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .digests import file_sha256
from .errors import DatasetError, MissingExtraError, TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_LOCAL_WORKERS = 64
# How often a part is done again whose worker was killed, or whose machine is gone.
RETRIES = 3
# Usage events go to Ray's makers unless this is set before it is loaded.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# What keeps Ray on the loopback interface where it runs on this machine alone; else its servers
# listen on all addresses. Named for the systems on which that is Ray's default.
ON_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# TensorFlow adds up in an order that depends on its threads, which are as many as processors.
THREADS = "TF_NUM_INTRAOP_THREADS"


@dataclass(frozen=True)
class File:
    """A file that parts read: each machine has it, under the same path.

    Attributes:
        path: absolute.
        sha256: of the file that the training is to learn from.
    """

    path: Path
    sha256: bytes

    @classmethod
    def of(cls, path: Path) -> File:
        """The file of this machine; raises DatasetError where it cannot be read."""
        return cls(path.absolute(), file_sha256(path))

    def check(self) -> None:
        """Raise TrainingError where this machine has none, or another one."""
        try:
            if file_sha256(self.path) == self.sha256:
                return
            problem = "is another file"
        except DatasetError as error:
            problem = error.problem.removeprefix(f"{self.path}: ")
        raise TrainingError(
            f"{self.path}: {problem} on {socket.gethostname()}, unlike where the training began",
            "give each machine the same files, under the same path",
        )


class Pool(Protocol):
    """Does the parts of a training."""

    def map(
        self, function: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any
    ) -> Iterator[Result]:
        """Do each part; results come in the order of `items`.

        Args:
            function: of a module, not of another function.
            items: what differs from part to part; small.
            shared: what all read; not changed by any.
        """


class Here:
    """One part after the other, in this process."""

    def map(
        self, function: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any
    ) -> Iterator[Result]:
        """See `Pool`."""
        return (function(item, shared) for item in items)


class _Ray:
    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(
        self, function: Callable[[Item, Any], Result], items: Sequence[Item], shared: Any
    ) -> Iterator[Result]:
        from ray.exceptions import RayError, RayTaskError

        task = self._ray.remote(max_retries=RETRIES)(function)
        everywhere = self._ray.put(shared)
        references = [task.remote(item, everywhere) for item in items]
        for number, reference in enumerate(references, start=1):
            try:
                yield self._ray.get(reference)
            except RayTaskError as error:
                raise error.cause from error  # what the part itself raised
            except RayError as error:
                raise TrainingError(
                    f"part {number} of {len(items)}: lost its worker, and {RETRIES} others after "
                    f"it ({type(error).__name__})",
                    "see whether memory ran out (`dmesg`, `ray status`); give fewer --workers",
                ) from error


HERE = Here()


@contextmanager
def workers(where: str | None) -> Iterator[Pool]:
    """Find workers, and let them go at the end.

    Args:
        where: None for this process; a number for as many worker processes on this machine, which
            end with the block; or a cluster's address, `ray://HOST:10001`, whose machines have the
            same Fogline installed.

    Raises:
        MissingExtraError: Ray is not installed.
        TrainingError: it is no number or address, or no cluster answers.
    """
    if where is None:
        yield HERE
        return
    count = _count(where)
    os.environ.update(QUIET | (ON_THIS_MACHINE if count else {}))
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray", "ray") from error
    # Ray's sockets lie in it, whose names may not be long.
    own = tempfile.mkdtemp(prefix="ray") if count else None
    try:
        if count:
            ray.init(
                num_cpus=count,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=own,
            )
        else:
            try:
                ray.init(
                    address=where,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": {THREADS: _threads()}},
                )
            except ray.exceptions.AuthenticationError as error:
                raise TrainingError(
                    f"--workers {where}: RAY_AUTH_MODE=token, and there is no token",
                    "put the one of the cluster's head (`ray get-auth-token`) into "
                    "~/.ray/auth_token",
                ) from error
            except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
                raise TrainingError(
                    f"--workers {where}: no cluster answers ({error})",
                    "see `ray status` on its head, whether its port is open from here, and whether "
                    "it asks for a token: RAY_AUTH_MODE=token gives it the one in "
                    "~/.ray/auth_token, which must be its head's",
                ) from error
        yield _Ray(ray)
    finally:
        ray.shutdown()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def _count(where: str) -> int:
    """How many workers on this machine; 0 for an address."""
    if where.isascii() and where.isdigit():
        count = int(where)
        if not 1 <= count <= MAX_LOCAL_WORKERS:
            raise TrainingError(
                f"--workers {where}: is no number from 1 to {MAX_LOCAL_WORKERS}",
                "give as many as the machine has cores, or a cluster's address",
            )
        return count
    if not where.startswith("ray://"):
        raise TrainingError(
            f"--workers {where[:80]}: is neither a number nor an address",
            "give --workers 2, or --workers ray://HOST:10001",
        )
    return 0


def _threads() -> str:
    """How many threads TensorFlow takes here."""
    return os.environ.get(THREADS) or str(len(os.sched_getaffinity(0)))
