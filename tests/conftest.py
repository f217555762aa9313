"""Options of the test networks, printed in the header; and what `-n` needs to know."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import memory, parallel, summary
from support.nets import boards, namespaces
from support.nets.manifest import load
from support.nets.wires import WAYS

MANIFESTS = Path(__file__).parent / "network" / "manifests"
# This one runs by the proxy as well where namespaces are to be had, so that both ways stay good.
BOTH_WAYS = "halves"

# Whatever else runs on the machine, no test fails for being slow; what fails replays elsewhere.
settings.register_profile(
    "fogline", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fogline")


def pytest_addoption(parser):
    group = parser.getgroup("networks of real processes (tests/network/README.md)")
    group.addoption(
        "--networks",
        choices=("auto", *WAYS),
        default="auto",
        help="how they are wired up: network namespaces, a proxy on loopback, or the first of "
        "the two that this machine allows (auto)",
    )
    group.addoption(
        "--manifests",
        default="ci",
        metavar="ci|all|NAME,...",
        help="which manifests run (default: those of every test run)",
    )
    group.addoption("--net-seed", type=int, help="seed of all that networks leave to chance")
    group = parser.getgroup("boards on a bench (tests/device/README.md)")
    group.addoption(
        "--every-cut",
        action="store_true",
        help="pull a board's cable at every write of its provisioning, not at a few (minutes)",
    )
    group.addoption("--cut-seed", type=int, help="seed of the few")


def _missing():
    return namespaces.why_missing()


def pytest_configure(config):
    """Settle the way, the seed and the manifests once, for header and tests alike."""
    if (root := memory.root()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(root))
    asked = config.getoption("--networks")
    missing = _missing() if asked != "proxy" else None
    if asked == "namespaces" and missing:
        raise pytest.UsageError(f"--networks namespaces: {missing}; or use --networks proxy")
    config.net_way = "proxy" if asked == "proxy" or missing else "namespaces"
    config.net_reason = f" ({missing})" if missing else ""
    seed = config.getoption("--net-seed")
    if seed is None:  # workers take that of the header
        chosen = getattr(config, "workerinput", {}).get("net_seed")
        seed = random.SystemRandom().randrange(2**32) if chosen is None else chosen
    config.net_seed = seed
    try:
        everything = [load(path) for path in sorted(MANIFESTS.glob("*.toml"))]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    chosen = config.getoption("--manifests")
    if chosen == "all":
        config.net_manifests = everything
    elif chosen == "ci":
        config.net_manifests = [m for m in everything if m.ci]
    else:
        by_name = {m.name: m for m in everything}
        unknown = set(chosen.split(",")) - by_name.keys()
        if unknown:
            raise pytest.UsageError(
                f"--manifests {', '.join(sorted(unknown))}: there is none; there are "
                f"{', '.join(by_name)}"
            )
        config.net_manifests = [by_name[name] for name in chosen.split(",")]
    config.net_runs = [(m, config.net_way) for m in config.net_manifests]
    if chosen in ("ci", "all") and config.net_way == "namespaces" and asked == "auto":
        config.net_runs += [(m, "proxy") for m in config.net_manifests if m.name == BOTH_WAYS]
    config.net_total = len(everything)


def pytest_report_header(config):
    return (
        f"temporary files: in {os.environ.get('PYTEST_DEBUG_TEMPROOT', tempfile.gettempdir())}\n"
        f"networks: by {config.net_way}{config.net_reason}, {len(config.net_manifests)} of "
        f"{config.net_total} manifests, seed {config.net_seed}, readings "
        f"{boards.source_of_readings()}"
    )


def pytest_generate_tests(metafunc):
    if "net_run" in metafunc.fixturenames:
        runs = metafunc.config.net_runs
        metafunc.parametrize("net_run", runs, ids=[f"{m.name}-{way}" for m, way in runs])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: tests of networks wait for most of their time."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if stray := parallel.stray_names(config.rootpath):
        raise pytest.UsageError(f"tests/support/parallel.py: {', '.join(stray)}: not there")
    return parallel.Schedule(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["net_seed"] = node.config.net_seed


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=parallel.rank)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        summary.hand_over(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    summary.take_over(node)


def pytest_terminal_summary(terminalreporter, config):
    summary.write(terminalreporter, config)
