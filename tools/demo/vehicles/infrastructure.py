"""Sensors and cameras at the road, which the government owns, and a camera's pictures.

A picture shows as many vehicles as the camera's board says it has counted, so that whoever gets
both can compare them.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from .logs import START, Row

ROAD_SENSOR, CAMERA = "road-sensor", "camera"
ROWS_A_WEEK = 12
STEP_S = 5
WIDTH, HEIGHT = 320, 180
MAX_VEHICLES = 12
_ROAD, _VEHICLE, _NOISE = 70, 215, 9
_LANES = (58, 92, 126)
_PNG = b"\x89PNG\r\n\x1a\n"
_Channels = tuple[tuple[str, str, float, float], ...]
_CHANNELS: dict[str, _Channels] = {
    ROAD_SENSOR: (
        ("flow", "/min", 0.0, 200.0),
        ("speed", "km/h", 0.0, 255.0),
        ("surface", "Cel", -40.0, 90.0),
    ),
    CAMERA: (("vehicles", "1", 0.0, 100.0), ("brightness", "%", 0.0, 100.0)),
}  # fmt: skip

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Site:
    """A board at the road; its type is ROAD_SENSOR or CAMERA."""

    name: str
    type: str

    @property
    def channels(self) -> _Channels:
        """What it measures."""
        return _CHANNELS[self.type]


SITES = (
    Site("hangang-bridge-sensor", ROAD_SENSOR),
    Site("hangang-bridge-camera", CAMERA),
    Site("namsan-tunnel-sensor", ROAD_SENSOR),
    Site("namsan-tunnel-camera", CAMERA),
)


def site_week(site: Site, week: int, seed: int) -> list[tuple[datetime, Row]]:
    """What a board at the road logs in a week, from 1."""
    chance = random.Random(f"{seed}/{site.name}/{week}")  # noqa: S311 - must replay
    begin = START + timedelta(weeks=week - 1, hours=8)
    rows: list[tuple[datetime, Row]] = []
    for index in range(ROWS_A_WEEK):
        if site.type == CAMERA:
            row = {"vehicles": float(chance.randint(1, MAX_VEHICLES))}
            row["brightness"] = round(chance.uniform(35.0, 80.0), 1)
        else:
            flow = float(chance.randint(8, 60))
            row = {"flow": flow, "speed": round(78.0 - 0.7 * flow + chance.gauss(0, 2.0), 1)}
            row["surface"] = round(chance.uniform(-2.0, 6.0), 1)
        rows.append((begin + timedelta(seconds=STEP_S * index), row))
    return rows


def picture(site: Site, week: int, vehicles: int, seed: int) -> Picture:
    """What a camera sees: a road with lanes, and so many vehicles, none touching another."""
    noise = np.random.default_rng([seed, week, *site.name.encode()])
    image = np.full((HEIGHT, WIDTH), 110, np.float64)
    image[_LANES[0] - 20 : _LANES[-1] + 20] = _ROAD
    for edge in (_LANES[0] + 17, _LANES[1] + 17):
        image[edge, ::16] = 150
    slots = [(lane, column) for lane in _LANES for column in range(18, WIDTH - 40, 48)]
    for slot in noise.permutation(len(slots))[:vehicles]:
        lane, column = slots[slot]
        column += int(noise.integers(0, 12))
        image[lane - 7 : lane + 7, column : column + 26] = _VEHICLE
    image += noise.normal(0, _NOISE, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def count_vehicles(image: Picture) -> int:
    """How many vehicles a picture shows: bright spots of a vehicle's size."""
    from scipy import ndimage

    spots, count = ndimage.label(image > (_ROAD + _VEHICLE) // 2)
    sizes = ndimage.sum_labels(np.ones_like(spots), spots, range(1, count + 1))
    return int(np.count_nonzero(np.asarray(sizes) > 100))


def encode_png(image: Picture, text: str) -> bytes:
    """Write a grey picture (PNG, ISO/IEC 15948), with `text` as its title."""
    height, width = image.shape
    lines = b"".join(b"\0" + line.tobytes() for line in image)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"tEXt", b"Title\0" + text.encode("latin-1")),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return _PNG + b"".join(_chunk(kind, data) for kind, data in parts)


def decode_png(data: bytes) -> tuple[Picture, str]:
    """Read what `encode_png` wrote: the picture, and its title; raises ValueError."""
    if not data.startswith(_PNG):
        raise ValueError("is no PNG picture")
    at, parts = len(_PNG), {}
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        parts[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + size]
        at += 12 + size
    try:
        width, height = struct.unpack(">II", parts[b"IHDR"][:8])
        room = zlib.decompressobj()
        lines = room.decompress(parts[b"IDAT"], WIDTH * HEIGHT + HEIGHT)
        image = np.frombuffer(lines, np.uint8).reshape(height, width + 1)[:, 1:]
        return image, parts[b"tEXt"].split(b"\0", 1)[1].decode("latin-1")
    except (KeyError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise ValueError(f"is no picture of a camera of ours: {error}") from error


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sites(count: int) -> Sequence[Site]:
    """The first `count` of the sites."""
    return SITES[:count]
