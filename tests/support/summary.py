"""What tests have to say at the end of a run, from whichever process they ran in."""

import pytest

_SECTIONS = pytest.StashKey[dict[str, list[str]]]()
_KEY = "summary sections"


def say(config, title, lines):
    """Have a section of these lines printed at the end; one of the same title is replaced."""
    config.stash.setdefault(_SECTIONS, {})[title] = list(lines)


def hand_over(config):
    """A worker's last word to the process that started it."""
    config.workeroutput[_KEY] = config.stash.get(_SECTIONS, {})


def take_over(node):
    """Take what a worker has handed over; one that broke off has nothing."""
    for title, lines in getattr(node, "workeroutput", {}).get(_KEY, {}).items():
        say(node.config, title, lines)


def write(reporter, config):
    """Print all sections."""
    for title, lines in sorted(config.stash.get(_SECTIONS, {}).items()):
        reporter.section(title)
        for line in lines:
            reporter.write_line(line)
