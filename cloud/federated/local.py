"""A whole federation on this machine: one SuperLink, a SuperNode for each site, all on 127.0.0.1.

Each site's process reads a file of its own, into which its machines are dealt; what goes between
the processes is what goes between plants.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloud.errors import ModelError, TrainingError
from cloud.train.rul_data import TRAIN, Units, find

from .flower import Flower, Process, Tls, address_of, check_installed, hold_port, write_app
from .run_files import RoundRecord, RunFiles, Settings
from .site import deal, hold_out, read_site

log = logging.getLogger(__name__)

HELD_OUT = "held-out"
POLL_S = 0.5
STATUS_EVERY_S = 15.0
# Beyond what its rounds may take.
SLACK_S = 120.0
# A SuperNode that was let in stays longer than STAYED_S. So many that did not, one after the other,
# take longer than the minute for which one that was cut off is still taken to be there.
STAYED_S, AGAIN_S, MAX_ENDED = 30.0, 5.0, 20
# What a SuperNode writes when it cannot reach the trainer. After so long of nothing else there is
# another one.
IN_VAIN = "Connection attempt failed"
VAIN_S = 40.0
# What a run that goes on has to have as it was begun.
AGREED = (
    "task", "strategy", "epochs", "seed", "sites", "noise", "clip", "steps", "masks", "held_out",
)  # fmt: skip
_DROP = re.compile(r"(\d+)@(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Drop:
    """A site whose SuperNode is killed.

    Attributes:
        site: its number, from 1.
        first: round before which it goes.
        last: round after which it comes back; None if it does not.
    """

    site: int
    first: int
    last: int | None

    @classmethod
    def of(cls, text: str) -> Drop:
        """Read SITE@ROUND or SITE@FIRST-LAST; raises ValueError."""
        found = _DROP.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:80]}: give SITE@ROUND, or SITE@FIRST-LAST, all from 1")
        site, first, last = (None if part is None else int(part) for part in found.groups())
        assert site is not None and first is not None  # noqa: PT018 - the expression has them
        if not site or not first or (last is not None and last < first):
            raise ValueError(f"{text[:80]}: sites and rounds count from 1, upwards")
        return cls(site, first, last)


def write_sites(
    data: Path, directory: Path, count: int, split: str, seed: int, held_out: int = 0
) -> list[Path]:
    """Deal a file's machines out into a file for each site; gives the files.

    Args:
        data: the file, or the folder of its subset.
        directory: for the sites' folders.
        count, split, seed: as `site.deal` takes them.
        held_out: so many machines go to the folder HELD_OUT instead, which no site reads.

    Raises:
        RecordingError, TrainingError.
    """
    source = find(data, TRAIN) if data.is_dir() else data
    units = read_site(source)
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]

    def write(name: str, part: Units) -> Path:
        path = directory / name / f"{TRAIN}_site.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.flatnonzero(np.isin(units.unit, part.unit))
        path.write_text("".join(f"{lines[row]}\n" for row in rows), encoding="utf-8")
        return path

    dealt = units
    if held_out:
        kept, dealt = hold_out(units, held_out, seed)
        write(HELD_OUT, kept)
    return [
        write(f"site-{number}", part)
        for number, part in enumerate(deal(dealt, count, split, seed), start=1)
    ]


def run_locally(
    files: RunFiles,
    sites: Sequence[Path],
    drops: Sequence[Drop],
    told: Callable[[RoundRecord], None],
) -> None:
    """Lead a run, from where its files end, with all processes here.

    Args:
        files: of the run, begun.
        sites: a file of machines for each site.
        drops: whose SuperNode is killed, and when.
        told: is given each round that is over.

    Raises:
        MissingExtraError: Flower is not installed.
        TrainingError: a process ends, too few sites answer, or it takes too long.
    """
    check_installed()
    with files.alone():
        files.forget_result()
    work = (files.directory / "flower").resolve()
    work.mkdir(parents=True, exist_ok=True)
    with Flower(work).started() as flower:
        with hold_port() as port:
            address = address_of(port)
            superlink = flower.superlink(address, None, known=False)

        def start(number: int) -> Process:
            config = {"site": f"site-{number}", "data": str(sites[number - 1].resolve())}
            return flower.supernode(f"site-{number}", address, config, None)

        over = len(files.rounds())
        nodes = {
            number: start(number)
            for number in range(1, len(sites) + 1)
            if not any(one.site == number and _is_away(one, over + 1) for one in drops)
        }

        def after(record: RoundRecord) -> None:
            told(record)
            for one in drops:
                if one.first == record.round + 1 and one.site in nodes:
                    log.info("site %d is killed before round %d", one.site, one.first)
                    flower.end(nodes.pop(one.site))
                elif one.last == record.round and one.site not in nodes:
                    nodes[one.site] = start(one.site)

        app = write_app(work / "app", files.directory.resolve(), "null")
        _lead(files, flower, app, lambda: [superlink, *nodes.values()], after)


def _lead(
    files: RunFiles,
    flower: Flower,
    app: Path,
    needed: Callable[[], list[Process]],
    after: Callable[[RoundRecord], None],
) -> None:
    """Have the SuperLink run an app, and tell of each round until the run is over.

    Args:
        files: of the run.
        flower: whose SuperLink it is.
        app: its directory.
        needed: processes that must not end; the SuperLink first.
        after: is given each round that is over.

    Raises:
        TrainingError: a process ends, too few sites answer, or it takes too long.
    """
    settings = files.settings()
    over = len(files.rounds())
    run = flower.run(app)
    asked = time.monotonic()
    deadline = asked + SLACK_S + settings.longest_round_s * (settings.rounds - over + 1)
    while True:
        result = files.result()
        for record in files.rounds()[over:]:
            after(record)
            over += 1
        if result is not None:
            break
        superlink = _check(needed(), deadline)
        if time.monotonic() - asked > STATUS_EVERY_S:
            asked = time.monotonic()
            if flower.status(run).startswith("finished") and files.result() is None:
                raise TrainingError(
                    f"run {settings.run}: ended without a result: {superlink.tail()}",
                    f"see {superlink.log}, and go on with --resume",
                )
        time.sleep(POLL_S)
    if "error" in result:
        raise TrainingError(str(result["error"]), str(result["remedy"]))


def _is_away(drop: Drop, number: int) -> bool:
    return drop.first <= number and (drop.last is None or number <= drop.last)


def _check(needed: list[Process], deadline: float) -> Process:
    for process in needed:
        if not process.is_running:
            raise TrainingError(
                f"{process.name}: has ended: {process.tail()}", f"see {process.log}"
            )
    superlink = needed[0]
    if time.monotonic() > deadline:
        raise TrainingError(
            f"federation: takes too long: {superlink.tail()}",
            f"see {superlink.log.parent}, and go on with --resume",
        )
    return superlink


def serve(
    files: RunFiles,
    listen: str,
    tls: Tls,
    sites: Mapping[str, tuple[str, Path]],
    told: Callable[[RoundRecord], None],
) -> None:
    """Lead a run whose sites are on other machines, from where its files end.

    Args:
        files: of the run, begun.
        listen: HOST:PORT for the sites' SuperNodes.
        tls: of this machine.
        sites: key id in hex and public key, a file in OpenSSH's format, of the member whose fog
            node it is, by the site's name. Nobody else may take part.
        told: is given each round that is over.

    Raises:
        MissingExtraError, TrainingError: as `run_locally`.
    """
    check_installed()
    with files.alone():
        files.forget_result()
    work = (files.directory / "flower").resolve()
    work.mkdir(parents=True, exist_ok=True)
    with Flower(work).started() as flower:
        superlink = flower.superlink(listen, tls, known=True)
        nodes = {
            str(flower.register(public_key)): [name, kid]
            for name, (kid, public_key) in sites.items()
        }
        app = write_app(work / "app", files.directory.resolve(), json.dumps(nodes))
        _lead(files, flower, app, lambda: [superlink], told)


def take_part(
    directory: Path,
    superlink: str,
    tls: Tls,
    key: Path,
    config: Mapping[str, str | float],
) -> None:
    """Have this site take part in whatever the trainer leads, until it is stopped.

    A SuperNode that ends, or that long finds no trainer, is started again: one whose trainer began
    anew does, and one whose predecessor was cut off, for which the SuperLink waits a minute before
    it lets it in again.

    Args:
        directory: for Flower's files and its log.
        superlink: HOST:PORT of the trainer's.
        tls: the authority.
        key: private key that the trainer knows, in OpenSSH's format.
        config: what the site's half is told.

    Raises:
        MissingExtraError: Flower is not installed. TrainingError: its SuperNode ends each time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with Flower(directory.resolve()).started() as flower:
        ended = 0
        while ended < MAX_ENDED:
            started = time.monotonic()
            node = flower.supernode("site", superlink, config, tls, key)
            heard = started
            # One that was started while the trainer was away may try in vain for good.
            while node.is_running and time.monotonic() - heard < VAIN_S:
                time.sleep(POLL_S)
                if IN_VAIN not in node.last_line():
                    heard = time.monotonic()
            flower.end(node)
            ended = 1 if time.monotonic() - started > STAYED_S else ended + 1
            log.warning("%s: the SuperNode has ended, see %s; another follows", superlink, node.log)
            time.sleep(AGAIN_S)
    raise TrainingError(
        f"{superlink}: the SuperNode has ended {ended} times in a row: {node.tail()}",
        "see that the trainer has this member's certificate, and that its port is open",
    )


def begin_or_resume(files: RunFiles, settings: Settings, *, resume: bool) -> Settings:
    """Begin a run, or find the settings of one that is to go on, with as many rounds as asked.

    Raises:
        ModelError: there is a run already, or none to go on with, or one of other settings.
    """
    if not resume:
        files.begin(settings)
        return settings
    before = files.settings()
    for name in AGREED:
        if getattr(before, name) != getattr(settings, name):
            raise ModelError(
                f"{files.directory}: was begun with {name} {getattr(before, name)}, not "
                f"{getattr(settings, name)}",
                "go on with the same settings, or begin another run",
            )
    files.lengthen(settings.rounds)
    return files.settings()
