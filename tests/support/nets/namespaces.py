"""Places as network namespaces, and the network between them as a router in this process.

Every place has a namespace with one TUN device in it, whose other end is here: the IP packets
that a place sends are read, and written into the device of the place they are for, later or not
at all as `Links` says. So loss, delay and cuts happen below TCP, as in a real network, with
nothing of the kernel but namespaces and TUN (no netem, no firewall). All goes away with the
namespaces, which are deleted at the end, and the devices, which live as long as this process.

Addresses are of 198.18.0.0/15, which is set aside for test networks (RFC 2544).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from .links import DESK, Links
from .manifest import BOARDS
from .wires import MissingWayError

TUN = Path("/dev/net/tun")
NETNS = Path("/run/netns")
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
MTU = 1500
# Packets taken from one device before the others have their turn.
BURST = 64
MAX_NETWORKS = 200
_IPV4 = 4


def why_missing() -> str | None:
    """Why this machine has no namespaces for us, with the remedy; None if it has."""
    if shutil.which("ip") is None:
        return "the program ip is missing; install iproute2"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} cannot be opened; run as root, in a container with --device {TUN}"
    status = Path("/proc/self/status").read_text()
    effective = int(next(x for x in status.splitlines() if x.startswith("CapEff")).split()[1], 16)
    if not (effective >> CAP_NET_ADMIN & 1 and effective >> CAP_SYS_ADMIN & 1):
        return "CAP_NET_ADMIN and CAP_SYS_ADMIN are needed; run as root"
    made = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
    return None if made.returncode == 0 else f"unshare --net: {made.stderr.strip()}"


class Namespaces:
    """See the module; `places` are all there will be."""

    way = "namespaces"

    def __init__(self, links: Links, places: Sequence[str]) -> None:
        if (reason := why_missing()) is not None:
            raise MissingWayError(f"network namespaces: {reason}")
        self._links = links
        self._devices: dict[str, int] = {}
        self._ports: dict[tuple[str, str], int] = {}
        self._spaces: dict[str, str] = {}
        # The desk and the boards share a device here. What does not choose its own address, as
        # the firmware does not, gets the first one, and so is a board.
        number, desk = _first_free_device()
        self._number = number
        self._devices[DESK] = self._devices[BOARDS] = desk
        self._hosts = {BOARDS: 1, DESK: 2}
        self._hosts |= {place: 10 + index for index, place in enumerate(places)}
        self._places = {self._packed(place): place for place in self._hosts}
        try:
            for host in (BOARDS, DESK):
                _ip("addr", "add", f"{self._address(host)}/24", "dev", _device(number))
            _ip("link", "set", _device(number), "up")
            for place in places:
                self._make(place)
        except BaseException:
            self._remove()
            raise

    async def start(self) -> None:
        """Route."""
        loop = asyncio.get_running_loop()
        for descriptor in set(self._devices.values()):
            loop.add_reader(descriptor, self._route, descriptor)

    async def stop(self) -> None:
        """Remove devices and namespaces."""
        loop = asyncio.get_running_loop()
        for descriptor in set(self._devices.values()):
            loop.remove_reader(descriptor)
        self._remove()

    def listen(self, place: str, service: str) -> str:
        """Ports are free: the namespace is the place's own."""
        port = self._ports.setdefault((place, service), 7000 + len(self._ports))
        return f"{self._address(place)}:{port}"

    def reach(self, who: str, place: str, service: str) -> str:
        """The same from everywhere."""
        return self.listen(place, service)

    def command(self, place: str, command: Sequence[str]) -> list[str]:
        """`ip netns exec` replaces itself by the command."""
        if place not in self._spaces:
            return list(command)
        return ["ip", "netns", "exec", self._spaces[place], *command]

    def source(self, place: str) -> str:
        """Address of the desk or of the boards."""
        return self._address(place)

    def hosts(self) -> list[str]:
        """All addresses."""
        return [self._address(place) for place in self._hosts]

    def _address(self, place: str) -> str:
        return f"198.18.{self._number}.{self._hosts[place]}"

    def _packed(self, place: str) -> bytes:
        return bytes(int(part) for part in self._address(place).split("."))

    def _make(self, place: str) -> None:
        space = f"{_device(self._number)}-{place}"
        if (NETNS / space).exists():  # of a run that was killed: its device is gone, ours now
            _ip("netns", "del", space)
        _ip("netns", "add", space)
        self._spaces[place] = space
        with _inside(NETNS / space):
            self._devices[place] = _open_device("net0")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "addr", "add", f"{self._address(place)}/24", "dev", "net0")
        _ip("-n", space, "link", "set", "net0", "up")

    def _remove(self) -> None:
        # The desk's device holds this network's number, by which the namespaces are named. Given
        # back any earlier, it is the next network's, which then loses the namespaces it has made.
        holder = self._devices.pop(DESK)
        del self._devices[BOARDS]  # the same one
        with contextlib.ExitStack() as stack:  # one that fails does not keep the others
            stack.callback(os.close, holder)
            for space in self._spaces.values():
                stack.callback(_ip, "netns", "del", space)
            for descriptor in self._devices.values():
                stack.callback(os.close, descriptor)
        self._devices.clear()
        self._spaces.clear()

    def _route(self, descriptor: int) -> None:
        for _ in range(BURST):
            try:
                packet = os.read(descriptor, MTU)
            except BlockingIOError:
                return
            if packet[0] >> 4 != _IPV4:
                continue
            source = self._places.get(packet[12:16])
            target = self._places.get(packet[16:20])
            if source is None or target is None:
                continue
            link = self._links.between(source, target)
            if link.cut or self._links.is_lost(link):
                continue
            if link.delay_s:
                asyncio.get_running_loop().call_later(link.delay_s, self._write, target, packet)
            else:
                self._write(target, packet)

    def _write(self, target: str, packet: bytes) -> None:
        # A full or closed device loses the packet, as any router would.
        if (descriptor := self._devices.get(target)) is not None:
            with contextlib.suppress(OSError):
                os.write(descriptor, packet)


def _device(number: int) -> str:
    return f"fogtest{number}"


def _first_free_device() -> tuple[int, int]:
    for number in range(MAX_NETWORKS):
        with contextlib.suppress(OSError):
            return number, _open_device(_device(number))
    raise MissingWayError(f"network namespaces: fogtest0 to fogtest{MAX_NETWORKS - 1} are in use")


def _open_device(name: str) -> int:
    """Make a TUN device in this thread's namespace; it goes when the descriptor is closed."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _inside(space: Path) -> Iterator[None]:
    """Put this thread, and no other, into a namespace for a while."""
    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    other = os.open(space, os.O_RDONLY)
    try:
        _set_namespace(other)
        yield
    finally:
        _set_namespace(own)
        os.close(own)
        os.close(other)


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is of Python 3.12
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=60)
