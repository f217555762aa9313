"""Starts and stops Flower's processes: a SuperLink where the trainer is, a SuperNode at each site.

Flower tells its makers of each start, and asks them for updates, unless it is told not to: both
are off in every process that is started here. Nothing is installed while it runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.errors import MissingExtraError, TrainingError

from .run_files import FEDERATED_PINS

LOCALHOST, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - what a user may ask for
# One of Flower's own choice, which only its own processes have to know.
ANY_PORT = f"{LOCALHOST}:0"
START_S = 120.0
STOP_S = 10.0
POLL_S = 0.2
# What Flower reads: no usage events, no look for updates, its files where we say.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
# Several sites on one machine gain nothing by a thread for each core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CONNECTION = "trainer"
# Ends a process with whoever started it, even where that is killed: a SuperNode that was left
# behind would go on taking part beside the next one of the same site.
TIE = ("setpriv", "--pdeathsig", "TERM")
MAX_TAIL_CHARS = 2000
# Of what Flower carries: two names.
APP_VERSION = "1.0.0"


@dataclass(frozen=True)
class Tls:
    """Certificates for what goes between SuperLink and SuperNodes; files in PEM.

    Attributes:
        authority: of the consortium.
        certificate, key: of the machine's own; a SuperNode needs none.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass
class Process:
    """A process of Flower's, with what it starts itself.

    Attributes:
        name: of its log.
        log: what it writes, after what those before it wrote from byte `log_start` on.
    """

    name: str
    log: Path
    popen: subprocess.Popen[bytes] = field(repr=False)
    log_start: int = 0

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def tail(self) -> str:
        """The end of what it wrote."""
        written = self.log.read_bytes()[self.log_start :]
        return written.decode(errors="replace")[-MAX_TAIL_CHARS:]

    def last_line(self) -> str:
        """The last line that it wrote, which may be asked for often."""
        with self.log.open("rb") as file:
            file.seek(max(self.log_start, file.seek(0, os.SEEK_END) - MAX_TAIL_CHARS))
            written = file.read().decode(errors="replace")
        return written.rstrip().rpartition("\n")[2]

    def stop(self) -> None:
        """End it and all that it has started; they are one session.

        What it has started has nothing left to do without it, and would wait for it.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + STOP_S
            while time.monotonic() < deadline and self.is_running:
                time.sleep(POLL_S)
        self.popen.wait()


def check_installed() -> None:
    """Raise MissingExtraError unless Flower is there, TrainingError without what ends it."""
    if importlib.util.find_spec("flwr") is None:
        raise MissingExtraError("Flower", "federated", FEDERATED_PINS)
    if shutil.which(TIE[0]) is None:
        raise TrainingError(f"{TIE[0]}: is not on PATH", "install util-linux, Debian's package")


def environment(home: Path) -> dict[str, str]:
    """What Flower's processes see: ours, but quiet, and with its programs on the PATH."""
    home.mkdir(parents=True, exist_ok=True)
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    return {**os.environ, **ONE_THREAD, **QUIET, "FLWR_HOME": str(home), "PATH": path}


def hold_port() -> socket.socket:
    """Keep a port of this machine for a process of Flower's, until it listens.

    It takes seconds to, and the system would give a port that is merely free to whoever asks for
    any meanwhile. Who asks for this one by its number, with SO_REUSEADDR, as Flower does, gets it:
    what holds it does not listen.
    """
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind((LOCALHOST, 0))
    return port


def address_of(port: socket.socket) -> str:
    """HOST:PORT of a port that is held."""
    host, number = port.getsockname()
    return f"{host}:{number}"


class Flower:
    """Processes of one run on this machine; all end with it."""

    def __init__(self, directory: Path) -> None:
        """Nothing is started yet.

        Args:
            directory: for Flower's own files and its logs.
        """
        check_installed()
        self._directory = directory
        self._environment = environment(directory / "home")
        self._processes: list[Process] = []

    @contextmanager
    def started(self) -> Iterator[Flower]:
        """End everything at the end, whatever happens: SIGTERM, too, as a service gets it."""
        before = signal.signal(signal.SIGTERM, _leave)
        try:
            yield self
        finally:
            self.stop()
            signal.signal(signal.SIGTERM, before)

    def stop(self) -> None:
        """End all processes."""
        while self._processes:
            self._processes.pop().stop()

    def end(self, process: Process) -> None:
        """End one of them, or what one that has ended left behind."""
        self._processes.remove(process)
        process.stop()

    def superlink(self, fleet: str, tls: Tls | None, *, known: bool) -> Process:
        """Start the trainer's end and wait until it listens.

        Args:
            fleet: HOST:PORT for SuperNodes.
            tls: None only on this machine.
            known: whether SuperNodes must show a key that is registered.
        """
        host, _, port = fleet.rpartition(":")
        host = LOCALHOST if host == EVERYWHERE else host
        # Two SuperLinks can listen on one port, and each would get some of the sites' calls. That
        # of a run that was killed takes a moment to end.
        deadline = time.monotonic() + STOP_S
        while _is_listening(host, int(port)):
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{fleet}: another process listens there", "end it, or give another port"
                )
            time.sleep(POLL_S)
        command = [
            "flower-superlink",
            "--fleet-api-address", fleet,
            "--serverappio-api-address", ANY_PORT,
            "--isolation", "subprocess",
        ]  # fmt: skip
        if tls is None:
            command += ["--insecure"]
        else:
            command += [
                "--ssl-ca-certfile", str(tls.authority),
                "--ssl-certfile", str(tls.certificate),
                "--ssl-keyfile", str(tls.key),
            ]  # fmt: skip
        if known:
            command += ["--enable-supernode-auth"]
        with hold_port() as control:
            address = address_of(control)
            process = self._start("superlink", [*command, "--control-api-address", address])
            self._wait_for(process, *control.getsockname())
        self._wait_for(process, host, int(port))
        self._connect(address, tls)
        return process

    def supernode(
        self,
        name: str,
        superlink: str,
        config: Mapping[str, str | float],
        tls: Tls | None,
        key: Path | None = None,
    ) -> Process:
        """Start a site's end.

        Args:
            name: of the site, for the log.
            superlink: HOST:PORT.
            config: what the site's app is told.
            tls: as above.
            key: private key in OpenSSH's format that the SuperLink knows.
        """
        told = " ".join(f"{item}={json.dumps(value)}" for item, value in config.items())
        command = [
            "flower-supernode",
            "--superlink", superlink,
            "--clientappio-api-address", ANY_PORT,
            "--isolation", "subprocess",
            "--node-config", told,
        ]  # fmt: skip
        command += ["--insecure"] if tls is None else ["--root-certificates", str(tls.authority)]
        if key is not None:
            command += ["--auth-supernode-private-key", str(key)]
        return self._start(f"supernode-{name}", command)

    def register(self, public_key: Path) -> int:
        """Let the SuperNode with this key take part; gives its node's number."""
        said = self._flwr("supernode", "register", str(public_key), CONNECTION)
        return int(said["node-id"])

    def run(self, app: Path) -> str:
        """Have the SuperLink run an app; gives Flower's number of the run."""
        return str(self._flwr("run", str(app), CONNECTION)["run-id"])

    def status(self, run: str) -> str:
        """How a run stands, in Flower's words."""
        said = self._flwr("ls", CONNECTION, "--run-id", run)
        return str(said["runs"][0]["status"])

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        try:
            done = subprocess.run(
                ["flwr", *arguments, "--format", "json"],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TrainingError(
                f"flwr {' '.join(arguments)}: says nothing within {START_S:g} s",
                "see the SuperLink's log",
            ) from error
        start = done.stdout.find(b"{")
        try:
            value: dict[str, Any] = json.loads(done.stdout[start:])
            is_good = done.returncode == 0 and bool(value.get("success", False))
        except ValueError:
            is_good = False
        if start < 0 or not is_good:
            said = (done.stdout + done.stderr).decode(errors="replace")[-MAX_TAIL_CHARS:]
            raise TrainingError(f"flwr {' '.join(arguments)}: {said}", "see the SuperLink's log")
        return value

    def _start(self, name: str, command: Sequence[str]) -> Process:
        log = self._directory / f"{name}.log"
        with log.open("ab") as file:
            log_start = file.tell()
            popen = subprocess.Popen(
                [*TIE, *command],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process = Process(name, log, popen, log_start)
        self._processes.append(process)
        return process

    def _wait_for(self, process: Process, host: str, port: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.is_running:
            if _is_listening(host, port):
                return
            time.sleep(POLL_S)
        raise TrainingError(
            f"{process.name}: does not listen on port {port}: {process.tail()}",
            "see its log, and whether another process has the port",
        )

    def _connect(self, control: str, tls: Tls | None) -> None:
        """Tell `flwr` where the SuperLink is."""
        lines = [
            "[superlink]",
            f'default = "{CONNECTION}"',
            f"[superlink.{CONNECTION}]",
            f'address = "{control}"',
        ]
        if tls is None:
            lines.append("insecure = true")
        else:
            lines.append(f"root-certificates = {json.dumps(str(tls.authority))}")
        (self._directory / "home" / "config.toml").write_text("\n".join(lines) + "\n")


def write_app(directory: Path, run_directory: Path, nodes: str) -> Path:
    """Write what Flower carries to the sites: two names, and which run it is.

    The code itself is that of the Fogline that each site has installed.
    """
    package = directory / "fogline_app"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text('"""Learning across sites, as Fogline does it."""\n')
    for half in ("client_app", "server_app"):
        # Flower looks for the assignment before it runs anything.
        (package / f"{half}.py").write_text(
            f"from cloud.federated import {half}\n\napp = {half}.app\n"
        )
    (directory / "pyproject.toml").write_text(
        "\n".join(
            [
                "[project]",
                'name = "fogline-app"',
                f'version = "{APP_VERSION}"',
                'description = "Learning across sites"',
                'license = "Apache-2.0"',
                "dependencies = []",
                "[tool.flwr.app]",
                'publisher = "fogline"',
                "[tool.flwr.app.components]",
                'serverapp = "fogline_app.server_app:app"',
                'clientapp = "fogline_app.client_app:app"',
                "[tool.flwr.app.config]",
                f"directory = {json.dumps(str(run_directory))}",
                f"nodes = {json.dumps(nodes)}",
            ]
        )
        + "\n"
    )
    return directory


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
