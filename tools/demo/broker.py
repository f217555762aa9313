"""The broker of a demo: amqtt in a process of its own, so that it can be killed and started."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from amqtt.broker import Broker

T = TypeVar("T")
AUTHENTICATION = "amqtt.plugins.authentication.AnonymousAuthPlugin"


class _Steady(dict[str, T]):
    """A dict that may be changed while somebody goes through its keys.

    amqtt 0.12 awaits while it goes through its subscriptions: where two clients connect at the same
    time, the later one's handler dies, and that client hears nothing until it tries again.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))


async def serve(port: int, certificate: Path, key: Path) -> None:
    """Serve MQTT over TLS on 127.0.0.1 until SIGTERM."""
    broker = Broker(
        {
            "listeners": {
                "default": {
                    "type": "tcp",
                    "bind": f"127.0.0.1:{port}",
                    "ssl": True,
                    "certfile": str(certificate),
                    "keyfile": str(key),
                }
            },
            "plugins": {AUTHENTICATION: {"allow_anonymous": True}},
        }
    )
    broker._subscriptions = _Steady()  # noqa: SLF001 - see there
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await broker.start()
    print(f"broker: listening on 127.0.0.1:{port}", flush=True)
    await ended.wait()
    await broker.shutdown()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(
        description="MQTT broker for the demo",
        epilog="example: python -m tools.demo.broker --port 8883 --certificate c.crt --key c.key",
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.certificate, arguments.key))


if __name__ == "__main__":
    main()
