"""A folder with images, a judge and a fog node."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture
from support.inference import Brightness, Node

from tools.vectors.hub import World


@pytest.fixture
def founding():
    return World().founding


@pytest.fixture
def judge() -> Brightness:
    return Brightness()


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def shoot(tmp_path):
    """Write an image; no two values give the same file."""
    folder = tmp_path / "camera"
    folder.mkdir()

    def write(name: str, value: int):
        path = folder / name
        Picture.fromarray(np.full((20, 30), value, np.uint8)).save(path)
        return path

    write.folder = folder
    return write
