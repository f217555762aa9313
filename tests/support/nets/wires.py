"""How a network is wired up: what the two ways have in common, and the choice between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

WAYS = ("namespaces", "proxy")


class MissingWayError(Exception):
    """This machine cannot wire a network up this way; says why and what would help."""


class Wires(Protocol):
    """Carries the traffic between places as `Links` says."""

    way: str

    async def start(self) -> None:
        """Begin to carry; after all places are known."""

    async def stop(self) -> None:
        """Stop carrying, and remove everything that was made."""

    def listen(self, place: str, service: str) -> str:
        """HOST:PORT for a service of this place to listen on."""

    def reach(self, who: str, place: str, service: str) -> str:
        """HOST:PORT under which `who` finds the service."""

    def command(self, place: str, command: Sequence[str]) -> list[str]:
        """The command that runs `command` at this place, under the same process id."""

    def source(self, place: str) -> str:
        """Address for sockets that this process opens in the name of a place; "": any."""

    def hosts(self) -> list[str]:
        """Addresses that certificates of servers must hold, apart from loopback's."""
