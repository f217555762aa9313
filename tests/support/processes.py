"""Programs that tests start, talk to and kill: the broker and boards."""

import asyncio
import contextlib
import json
import os
import shutil
import ssl

import aiomqtt
import pytest

from tools.demo.processes import free_port

HOST = "127.0.0.1"
DEADLINE_S = 60


def executable(name):
    """Return the path of a program that these tests cannot do without."""
    # Debian keeps mosquitto where only root looks.
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        pytest.fail(f"{name} is not on PATH; 'make test' installs it")
    return path


class Process:
    """A child process whose JSON lines are events."""

    def __init__(self, process):
        self._process = process
        self.events = []

    @classmethod
    async def start(cls, *command, **options):
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, **options
            )
        )

    async def wait_event(self, name, **fields):
        """Return the next event of this name whose fields are as given."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self._process.stdout.readline():
                event = json.loads(line)
                self.events.append(event)
                if event["event"] == name and fields.items() <= event.items():
                    return event
        raise AssertionError(f"ended without {name}; events: {self.events}")

    async def kill(self):
        """SIGKILL; waits until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        while await self._process.stdout.readline():  # to its end, or the pipe stays open
            pass

    async def wait(self):
        """Return the exit code once it has ended."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.wait()

    def count(self, name):
        return sum(event["event"] == name for event in self.events)


class Mosquitto:
    """A real broker that can be killed and started again with what it had on disk."""

    def __init__(self, directory, tls=None, address=None, wrap=list, settings=()):
        """`wrap` makes the command that runs a command where the broker is to be."""
        self.host, self.port = address or (HOST, free_port())
        lines = [
            "user root",  # if root starts it, it else becomes a user that cannot read here
            f"listener {self.port} {self.host}",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {directory}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_inflight_messages 0",
            *(f"log_type {kind}" for kind in ("error", "warning", "notice")),
            *settings,
        ]
        if tls is not None:
            lines += [f"cafile {tls.ca_pem}", f"certfile {tls.pem}", f"keyfile {tls.key}"]
        self._config = directory / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self.log = directory / "mosquitto.log"
        self.tls = tls
        self._wrap = wrap
        self._process = None

    @property
    def running(self):
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self):
        """Process id of the running broker."""
        return self._process.pid

    async def start(self):
        command = self._wrap([executable("mosquitto"), "-c", str(self._config)])
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stderr=log)
        async with asyncio.timeout(DEADLINE_S):
            while self._process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(self.host, self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)
        raise AssertionError(f"mosquitto ended at once; try mosquitto -c {self._config}")

    async def kill(self):
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self):
        """End it in order: it writes down what it has acknowledged."""
        self._process.terminate()
        await self._process.wait()

    def client(self, identifier, patience_s=2):
        """Make a hub-side client whose session outlives its connection.

        Where the broker may be killed, `patience_s` bounds how long an answer is waited for.
        """
        context = None
        if self.tls is not None:
            context = ssl.create_default_context(cafile=self.tls.ca_pem)
            context.check_hostname = False  # the name is not that of the loopback address
        return aiomqtt.Client(
            self.host,
            self.port,
            identifier=identifier,
            clean_session=False,
            tls_context=context,
            timeout=patience_s,
        )


@contextlib.asynccontextmanager
async def mosquitto(directory, tls=None):
    directory.mkdir(exist_ok=True)
    broker = Mosquitto(directory, tls)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.kill()
