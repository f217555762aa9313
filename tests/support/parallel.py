"""Which tests may run at the same time, in which order: the schedule of `pytest -n`.

A file's tests stay together, so that what a module or a session shares is made once; but for
those named here. Nothing here changes what a test does, and without `-n` nothing happens.
"""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

# Share what takes long to make: here TensorFlow, and a model that is trained with it.
TOGETHER = {
    "tests/device/test_tflite.py": "tensorflow",
    "tests/unit/cloud/test_anomaly.py": "tensorflow",
    "tests/unit/cloud/test_demand.py": "tensorflow",
    "tests/unit/cloud/test_drift.py": "tensorflow",
    "tests/unit/cloud/test_evaluate.py": "tensorflow",
    "tests/unit/cloud/test_export.py": "tensorflow",
    "tests/unit/cloud/test_failure.py": "tensorflow",
    "tests/unit/cloud/test_followed_labels.py": "tensorflow",
    "tests/unit/cloud/test_proposals.py": "tensorflow",
}
# Each of their tests takes long and makes all that it needs.
APART = (
    "tests/network/test_attacks.py",
    "tests/network/test_catching_up.py",
    "tests/network/test_manifests.py",
    "tests/network/test_membership.py",
    "tests/network/test_node_processes.py",
    "tests/network/test_repair.py",
    "tests/unit/ledger/test_exploration.py",
)
# What takes longest begins first, or all but one worker wait for it at the end.
FIRST = (
    "tests/unit/tools/test_node_simulation.py",
    "tests/network/test_demo.py",
    "tests/unit/ledger/test_simulation.py",
    "tests/unit/cloud/",
    "tests/network/",
    "tests/federated/",
    "tests/hil/",
    "tests/device/",
    "tests/unit/ledger/",
)


class Schedule(LoadScopeScheduling):
    """Hands the next group of tests to the worker that has none left."""

    def __init__(self, config, log=None):
        # By the order in which they were collected, which `rank` has settled.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return nodeid if file in APART else TOGETHER.get(file, file)


def rank(item):
    """Where a test stands in the order, for sorting."""
    file = item.nodeid.partition("::")[0]
    return next((n for n, start in enumerate(FIRST) if file.startswith(start)), len(FIRST))


def stray_names(root):
    """What is named above and is not there."""
    named = {*TOGETHER, *APART, *FIRST}
    return sorted(name for name in named if not (root / PurePosixPath(name)).exists())
