"""What a training measured on its way, as TensorBoard shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cloud.errors import TrainingError

DIRECTORY = "log"


class Scalar(Protocol):
    """Notes a value."""

    def __call__(self, name: str, value: float, step: int) -> None:
        """Note the value that `name` has at a step."""


@contextmanager
def experiment_log(out: Path) -> Iterator[Scalar]:
    """Open the log of a run, in `out`/log: `tensorboard --logdir` shows several beside each other.

    Args:
        out: the run's directory; made if it is not there.

    Raises:
        TrainingError: it cannot be written, here or where a value is noted.
    """
    import tensorflow as tf

    # tf.summary.scalar would write the same, but is there only where TensorBoard is installed.
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
        data_class="DATA_CLASS_SCALAR",
    )

    @contextmanager
    def writing() -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise TrainingError(
                f"{out / DIRECTORY}: cannot be written", "see that its disk has room; train again"
            ) from error

    def scalar(name: str, value: float, step: int) -> None:
        with writing(), writer.as_default():
            tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)

    with writing():
        writer = tf.summary.create_file_writer(str(out / DIRECTORY))
    try:
        yield scalar
    finally:
        with writing():
            writer.close()
