"""Images of pieces: what is read, grouped, learned, predicted and said of them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloud import images, near_duplicates
from cloud.digests import file_sha256
from cloud.errors import DatasetError, ModelError, RecordingError, TrainingError
from cloud.export import BOARD_OPS, to_int8_tflite
from cloud.inference.judges import QualityJudge
from cloud.train import (
    quality,
    quality_baselines,
    quality_model,
    quality_network,
    quality_split,
)
from cloud.train.job import Job
from cloud.train.quality_data import find_images, has_split, read_pieces
from cloud.train.quality_settings import FolderSettings, PredictSettings

SIDE = 64


def piece(random: np.random.Generator, *, defective: bool) -> np.ndarray:
    """A bright ring with texture of its own; the defective one has a dark hole in it."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    radius = np.hypot(x, y)
    picture = np.where((radius < 28) & (radius > 10), 180.0, 60.0)
    picture += np.kron(random.normal(0, 25, (SIDE // 4, SIDE // 4)), np.ones((4, 4)))
    if defective:
        angle = random.uniform(0, 2 * np.pi)
        at = np.hypot(x - 19 * np.cos(angle), y - 19 * np.sin(angle))
        picture[at < 5] = 0
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_pieces(folder: Path, count: int, seed: int, *, copies: int = 2) -> Path:
    """Write so many pieces of each kind, each as it is and as turned copies."""
    random = np.random.default_rng(seed)
    for name, defective in (("def_front", True), ("ok_front", False)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = piece(random, defective=defective)
            for copy in range(copies):
                turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture, copy)))
                turned.save(folder / name / f"{number}_{copy}.png")
    return folder


# Reading --------------------------------------------------------------------------------------


def test_an_image_is_read_as_a_grey_square(tmp_path):
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:, 10:] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    (square,) = images.read_grey(tmp_path / "a.png", [10])
    assert square.shape == (10, 10)
    assert square[:, :5].max() == 0
    assert square[:, 5:].min() == 200


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has nothing in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def cut(path: Path) -> bytes:
    """The first half of a good file."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    return path.read_bytes()[: path.stat().st_size // 2]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", lambda _: png_of(100_000, 100_000), "has too many pixels, at most"),
        ("x.png", lambda _: png_of(5_000, 5_000), "has 5000 x 5000 pixels, at most"),
        ("x.png", lambda _: png_of(8, 200), "has 8 x 200 pixels, at least 16 a side"),
        ("x.png", lambda _: png_of(32, 32), "is damaged"),
        ("x.png", cut, "is damaged"),
        ("x.jpeg", cut, "is damaged"),
        ("x.bmp", cut, "is damaged"),
        ("x.png", lambda _: b"no image", "is not a PNG file"),
        ("x.jpg", lambda _: png_of(32, 32), "is not a JPEG file"),
        ("x.png", lambda _: b"", "is not a PNG file"),
        ("x.txt", lambda _: b"notes", "is no image by its suffix"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    path = write_pieces(tmp_path / "data", 2, 0) / "ok_front" / name
    path.write_bytes(content(path))
    with pytest.raises(RecordingError, match=f"{name}: {said}"):
        images.read_all(images.list_images(path.parent), [16])


def test_an_image_of_sixteen_bits_or_too_many_bytes_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(path)
    with pytest.raises(RecordingError, match=r"x\.png: .*not 8 bits a channel"):
        images.read_grey(path, [16])
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", path.stat().st_size - 1)
    with pytest.raises(RecordingError, match=r"x\.png: has \d+ bytes, at most"):
        images.read_grey(path, [16])


def test_a_pipe_among_images_is_refused_before_it_is_opened(tmp_path):
    path = write_pieces(tmp_path / "data", 2, 0) / "ok_front" / "pipe.png"
    os.mkfifo(path)
    with pytest.raises(RecordingError, match=r"pipe\.png: is no file"):
        images.list_images(path.parent)
    with pytest.raises(RecordingError, match=r"pipe\.png: is no file"):
        images.read_grey(path, [16])
    with pytest.raises(DatasetError, match=r"pipe\.png: is no file"):
        file_sha256(path)


def test_damaged_images_raise_nothing_but_the_error_that_names_them(tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    random = np.random.default_rng(seed)
    picture = Image.fromarray(piece(random, defective=True))
    for suffix in images.FORMATS:
        path = tmp_path / f"x{suffix}"
        picture.save(path)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for at in random.integers(len(data), size=random.integers(1, 6)):
                data[at] = random.integers(256)
            path.write_bytes(data[: random.integers(len(data) // 2, len(data) + 1)])
            with contextlib.suppress(RecordingError):
                images.read_grey(path, [16])


def test_folders_say_which_class_an_image_is_of(tmp_path):
    data = write_pieces(tmp_path / "data", 2, 0)
    (data / ".hidden").write_text("not looked at")
    found = read_pieces(data)
    assert found.classes == ("def_front", "ok_front")
    assert found.good == "ok_front"
    assert found.counts() == {"def_front": 4, "ok_front": 4}
    for path, defective in zip(found.paths, found.defective, strict=True):
        assert defective == (path.parent.name == "def_front")
    assert not has_split(data)


def test_folders_that_are_not_as_they_must_be_are_refused(tmp_path):
    data = write_pieces(tmp_path / "data", 2, 0)
    for command in (quality.train, quality.evaluate):
        with pytest.raises(RecordingError, match=r"data/model: lies in .*data, among images"):
            command(data, Job(data / "model"))
    with pytest.raises(TrainingError, match="has no folder 'fine'; --good must be one of"):
        read_pieces(data, "fine")
    (data / "ok_front").rename(data / "fine")
    with pytest.raises(TrainingError, match="which of def_front, fine is of good pieces"):
        read_pieces(data)
    assert read_pieces(data, "fine").good == "fine"
    (data / "notes.txt").touch()
    with pytest.raises(RecordingError, match=r"notes\.txt: is no folder"):
        read_pieces(data, "fine")
    other = tmp_path / "other"
    (other / "ok").mkdir(parents=True)
    with pytest.raises(TrainingError, match="only images of 'ok'"):
        read_pieces(other)
    (other / "bad").mkdir()
    with pytest.raises(RecordingError, match=r"other/bad: holds no image"):
        read_pieces(other)
    with pytest.raises(RecordingError, match=r"nowhere: cannot be read"):
        read_pieces(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match=r"other/bad: holds no image"):
        find_images(other)


# Near-duplicates --------------------------------------------------------------------------------


def test_turned_mirrored_and_brightened_copies_are_one_group(tmp_path):
    random = np.random.default_rng(3)
    pieces = [piece(random, defective=number % 2 == 0)[::2, ::2] for number in range(6)]
    shown = []
    for picture in pieces:
        darker = (picture * 0.8 + 5).astype(np.uint8)
        shown += [picture, np.rot90(picture), picture[:, ::-1], np.rot90(darker[::-1], 3)]
    prints = near_duplicates.prints_of(np.stack(shown))
    labels = np.repeat(np.arange(6) % 2, 4)
    pairs = near_duplicates.alike(prints)
    assert len(pairs.first) == len(set(zip(pairs.first, pairs.second, strict=True))) == 6 * 6
    groups = near_duplicates.groups_of(labels, pairs, 0.95)
    assert groups.reshape(6, 4).tolist() == [[group] * 4 for group in groups[::4].tolist()]
    assert len(set(groups.tolist())) == 6
    between = near_duplicates.alike(prints[:4], prints[4:])
    assert len(between.first) == 0


def test_images_of_both_kinds_that_are_alike_are_named(monkeypatch):
    random = np.random.default_rng(4)
    shown = [piece(random, defective=False)[::2, ::2] for _ in range(4)]
    shown += [
        shown[1],
        np.rot90(shown[2]) // 8 * 8,
        shown[3],
        piece(random, defective=True)[::2, ::2],
    ]
    defective = np.array([False, False, False, True, True, True, False, True])
    prints = near_duplicates.prints_of(np.stack(shown))
    groups = quality_split.group(prints, defective, 0.95)
    paths = [Path(f"{'bad' if flag else 'good'}/{at}.png") for at, flag in enumerate(defective)]
    rows = groups.contradictions(paths, defective)
    assert len(rows) == groups.report(defective, 0)["pairs_of_both_kinds"] == 3
    named = [(row["defective"], row["good"]) for row in rows]
    assert sorted(named[:2]) == [("bad/3.png", "good/6.png"), ("bad/4.png", "good/1.png")]
    assert named[2] == ("bad/5.png", "good/2.png")
    assert [row["correlation"] for row in rows[:2]] == [1, 1]
    assert 0.95 <= rows[2]["correlation"] < 1
    monkeypatch.setattr(quality_split, "LISTED", 1)
    assert len(groups.contradictions(paths, defective)) == 1


def test_no_group_is_divided_and_shares_are_kept():
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 30, 60)
    groups = np.repeat(np.arange(60), sizes)
    defective = np.repeat(random.random(60) < 0.4, sizes)
    defective[groups == 0], defective[groups == 1] = True, False
    among = groups % 5 != 0
    taken = quality_split.deal(groups, defective, among, 0.2, random)
    assert not (taken & ~among).any()
    for kind in (defective, ~defective):
        assert not set(groups[taken & kind]) & set(groups[~taken & kind & among])
        assert 0 < (taken & kind).sum() <= max(0.2 * (kind & among).sum(), sizes.max())


# Learning ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _small_networks():
    """So simple pieces need no more."""
    fog = replace(quality_network.FOG, side=48, widths=(8, 8), blocks=(0, 0), quick_epochs=20)
    board = replace(quality_network.BOARD, side=32, widths=(8, 8), blocks=(0, 1), quick_epochs=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "FOG", fog)
        patch.setattr(quality, "BOARD", board)
        patch.setattr(quality, "VARIANTS", (fog, board))
        patch.setattr(quality, "SIDES", (48, 32, near_duplicates.PRINT_SIDE))
        patch.setattr(quality_baselines, "TREES", 20)
        patch.setattr(quality_network, "EPOCH_IMAGES", 192)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("quality")
    data = write_pieces(directory / "data", 60, 1)
    quality.train(data, Job(directory / "model", quick=True, seed=1))
    return directory / "model"


def test_the_networks_fit_their_targets(trained):
    card = json.loads((trained / "card.json").read_text())
    assert card["sealed"] is False
    assert card["near_duplicates"]["groups"] == 120
    assert card["contradictions"] == []
    for name, about in card["variants"].items():
        assert (trained / about["file"]).stat().st_size == about["bytes"]
        assert about["input_zero"] == -128
        assert about["macs"] > 0
        assert 0 < about["threshold"] < 1
        if name == "board":
            assert set(about["ops"]) <= BOARD_OPS
            assert about["arena"] <= 96 * 1024
            assert about["seconds_at_240_mhz"] > 0


def test_the_real_board_network_fits_a_board():
    """As it is built for users: its arena, without training it."""
    grid, _ = quality_network.build(quality_network.BOARD)
    side = quality_network.BOARD.side
    samples = np.random.default_rng(0).random((8, side, side, 1)).astype(np.float32)
    int8 = to_int8_tflite(grid, samples, quality_network.ESP32_S3)
    assert int8.plan.macs < 10e6


@pytest.mark.parametrize("variant", ["fog", "board"])
def test_what_was_learned_judges_pieces_never_seen(trained, tmp_path, variant):
    data = write_pieces(tmp_path / "data", 20, 2, copies=1)
    settings = PredictSettings(tmp_path / "maps", variant)
    said = quality.predict(trained, data, tmp_path / "out.csv", settings)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "probability", "verdict", "threshold"]
    assert len(rows) == said["images"] == 40
    right = [(row["verdict"] == "defect") == row["file"].startswith("def_front/") for row in rows]
    assert np.mean(right) >= 0.9
    for row in rows:
        above = float(row["probability"]) >= float(row["threshold"])
        assert above == (row["verdict"] == "defect")
        with Image.open(tmp_path / "maps" / f"{row['file']}.png") as picture:
            assert picture.size == (SIDE, SIDE)
            assert picture.mode == "RGB"


def test_a_worker_beside_a_fog_node_judges_alike(trained, tmp_path):
    data = write_pieces(tmp_path / "data", 10, 2, copies=1)
    maps = tmp_path / "maps"
    quality.predict(trained, data, tmp_path / "out.csv", PredictSettings(maps, "fog"))
    judge = QualityJudge(trained, "fog")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images_ = np.stack([images.read_grey(data / row["file"], (judge.side,))[0] for row in rows])
    for row, judged in zip(rows, judge.judge(images_), strict=True):
        assert judged.said == ("defect" if row["verdict"] == "defect" else "normal")
        assert judged.score == pytest.approx(float(row["probability"]), abs=1e-6)
        with Image.open(maps / f"{row['file']}.png") as picture:
            assert picture.tobytes() == judge.picture(data / row["file"], judged).tobytes()
    card = json.loads((trained / "card.json").read_text())
    file = trained / card["variants"]["fog"]["file"]
    assert judge.sha256 == hashlib.sha256(file.read_bytes()).digest()


def test_the_heat_map_is_hottest_at_the_defect(trained, tmp_path):
    random = np.random.default_rng(5)
    hits = 0
    for number in range(10):
        picture = piece(random, defective=False)
        row, column = ((12, 32), (32, 12), (52, 32), (32, 52))[number % 4]
        picture[row - 4 : row + 5, column - 4 : column + 5] = 0
        path = tmp_path / f"{number}.png"
        Image.fromarray(picture).save(path)
        quality.predict(trained, path, tmp_path / "out.csv", PredictSettings(tmp_path / "maps"))
        with Image.open(tmp_path / "maps" / f"{number}.png.png") as image:
            levels = np.asarray(image).astype(int)
        red = levels[:, :, 0] - levels[:, :, 1]
        at = np.unravel_index(np.argmax(red), red.shape)
        hits += np.hypot(at[0] - row, at[1] - column) < 14
    assert hits >= 8


def test_judging_needs_no_tensorflow(trained, tmp_path):
    data = write_pieces(tmp_path / "data", 2, 2, copies=1)
    code = (
        "import sys; from pathlib import Path; from cloud.images import read_all; "
        "from cloud.train.quality_data import find_images; "
        "from cloud.train.quality_model import QualityModel; "
        f"model = QualityModel.load(Path({str(trained)!r}), 'fog'); "
        f"images, = read_all(find_images(Path({str(data)!r})), [model.side]); "
        "assert len(model.judge(images).probability) == 4; "
        "assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_model_that_is_not_one_is_refused(trained, tmp_path):
    model, data = shutil.copytree(trained, tmp_path / "model"), tmp_path / "x.png"
    Image.fromarray(piece(np.random.default_rng(0), defective=False)).save(data)
    with pytest.raises(ModelError, match="has no network 'phone'; --variant must be one of board"):
        quality.predict(model, data, tmp_path / "out.csv", PredictSettings(variant="phone"))
    (model / "fog.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError, match="is none"):
        quality.predict(model, data, tmp_path / "out.csv")
    shutil.copy(model / "board.tflite", model / "fog.tflite")
    with pytest.raises(ModelError, match="use model and card of one training"):
        quality.predict(model, data, tmp_path / "out.csv")
    card = json.loads((model / "card.json").read_text())
    card["variants"]["fog"]["threshold"] = "high"
    (model / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="card is damaged"):
        quality.predict(model, data, tmp_path / "out.csv")


def test_an_image_that_shows_nothing_is_refused(tmp_path):
    data = write_pieces(tmp_path / "data", 2, 0)
    Image.new("L", (SIDE, SIDE), 7).save(data / "ok_front" / "1_1.png")
    with pytest.raises(RecordingError, match=r"ok_front/1_1\.png: shows nothing, all of it"):
        quality.train(data, Job(tmp_path / "out", quick=True))


def test_too_little_of_a_kind_is_refused(tmp_path):
    data = write_pieces(tmp_path / "data", 10, 0, copies=1)
    with pytest.raises(TrainingError, match="10 images of defective pieces, at least 25"):
        quality.train(data, Job(tmp_path / "out", quick=True))
    for folder in data.iterdir():
        for number in range(30):
            shutil.copy(folder / "0_0.png", folder / f"copy_{number}.png")
    settings = FolderSettings()
    for path in data.glob("*/[1-9]_0.png"):
        path.unlink()
    with pytest.raises(TrainingError, match="are 1 groups of near-duplicates, at least 8"):
        quality.train(data, Job(tmp_path / "out", quick=True), settings)


def few_epochs(monkeypatch, networks=2):
    """What is judged here is the protocol, not the networks."""
    variants = [replace(variant, quick_epochs=2) for variant in quality.VARIANTS[:networks]]
    monkeypatch.setattr(quality, "VARIANTS", variants)


def test_an_evaluation_keeps_groups_apart_and_says_what_won(tmp_path, monkeypatch):
    data = write_pieces(tmp_path / "data", 60, 3)
    few_epochs(monkeypatch)
    result = quality.evaluate(data, Job(tmp_path / "out", quick=True, seed=2))
    assert result["judged_with_near_duplicate_learned"] == 0
    assert result["near_duplicates"]["groups"] == 120
    assert result["near_duplicates"]["kept_out_with_near_duplicate_learned_if_split_by_image"] > 0.5
    parts = [result[part] for part in ("learned", "judged")]
    assert sum(part["defective_groups"] for part in parts) == 60
    assert sum(part["good_images"] for part in parts) == 120
    assert 0 < result["validated"]["good_groups"] < result["learned"]["good_groups"]
    names = {row["model"] for row in result["results"]}
    assert names == {
        "network for fog nodes, int8", "network for fog nodes, float",
        "network for boards, int8", "network for boards, float",
        quality_baselines.MAJORITY, quality_baselines.THUMBNAILS, quality_baselines.FEATURES,
    }  # fmt: skip
    for row in result["results"]:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert "the network for fog nodes, in int8, is right for" in result["verdict"]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
    for name in ("precision_recall.png", "heatmaps.png", "loss.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    assert list((tmp_path / "out" / "heatmaps").rglob("*.png"))


def test_a_given_split_is_kept_and_what_it_divides_is_told(tmp_path, monkeypatch):
    write_pieces(tmp_path / "data" / "train", 40, 3, copies=1)
    write_pieces(tmp_path / "data" / "test", 10, 4, copies=1)
    for folder in ("def_front", "ok_front"):
        known = Image.open(tmp_path / "data" / "train" / folder / "0_0.png")
        known.rotate(90).save(tmp_path / "data" / "test" / folder / "known.png")
    monkeypatch.setattr(quality, "deal", keep_first(quality.deal))
    few_epochs(monkeypatch, 1)
    result = quality.evaluate(tmp_path / "data", Job(tmp_path / "out", quick=True, seed=2))
    assert result["judged"]["defective_images"] == result["judged"]["good_images"] == 11
    assert result["judged_with_near_duplicate_learned"] == 2
    assert result["protocol"].startswith("learned from train, judged by test")


def test_a_quick_look_is_at_a_part_of_the_images(tmp_path, monkeypatch):
    data = write_pieces(tmp_path / "data", 30, 3, copies=1)
    monkeypatch.setattr(quality, "QUICK_IMAGES", 25)
    whole = quality._read([data], FolderSettings(), Job(tmp_path))
    part = quality._read([data], FolderSettings(), Job(tmp_path, quick=True))
    assert len(whole.found.paths) == 60
    assert part.found.paths == whole.found.paths[::3]
    assert part.found.counts() == {"def_front": 10, "ok_front": 10}


def keep_first(real):
    """As `deal`, but what comes first of each kind is learned from."""

    def deal(groups, defective, among, share, random):
        first = {groups[np.flatnonzero(kind)[0]] for kind in (defective, ~defective)}
        return real(groups, defective, among & ~np.isin(groups, list(first)), share, random)

    return deal


def test_a_trained_model_is_measured_and_what_it_knows_is_told(trained, tmp_path):
    data = write_pieces(tmp_path / "data", 10, 7, copies=1)
    shutil.copy(trained.parent / "data" / "ok_front" / "3_1.png", data / "ok_front")
    result = quality.evaluate(data, Job(tmp_path / "out", seed=2, model=trained))
    assert result["judged_with_near_duplicate_learned"] == 1
    assert result["results"][0]["model"] == "network for fog nodes, int8"
    assert result["results"][0]["accuracy"] >= 0.85


def test_the_same_seed_gives_the_same_network():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (40, 32, 32), dtype=np.uint8)
    defective = np.arange(40) % 3 == 0
    files = [
        quality_network.fit_network(
            quality.BOARD, pictures, defective, np.arange(40) // 2, epochs=1, seed=seed,
            told=lambda epoch, loss: None,
        ).int8.data
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert files[0] == files[1] != files[2]


def test_a_variant_that_was_sent_to_a_worker_still_has_its_target():
    for variant in (quality_network.FOG, quality_network.BOARD):
        assert pickle.loads(pickle.dumps(variant)).on_board == variant.on_board


def test_an_image_is_seen_in_eight_ways():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    seen = [quality_model.seen_from(image, view) for view in range(quality_model.MAX_VIEWS)]
    assert seen[0].tolist() == image.tolist()
    assert seen[1].tolist() == [[[2, 1, 0], [5, 4, 3], [8, 7, 6]]]
    assert seen[2].tolist() == [[[6, 7, 8], [3, 4, 5], [0, 1, 2]]]
    assert seen[4].tolist() == [[[0, 3, 6], [1, 4, 7], [2, 5, 8]]]
    assert len({each.tobytes() for each in seen}) == quality_model.MAX_VIEWS
    for view, each in enumerate(seen):
        assert quality_model._laid_back(each, view).tolist() == image.tolist()


def test_a_verdict_does_not_hang_on_how_the_piece_lies(trained):
    model = quality_model.QualityModel.load(trained, "fog")
    images = np.stack([piece(np.random.default_rng(n), defective=n % 2 == 0) for n in range(6)])
    images = np.stack([np.asarray(Image.fromarray(i).resize((model.side,) * 2)) for i in images])
    said = model.judge(images)
    for view in range(1, quality_model.MAX_VIEWS):
        turned = model.judge(np.ascontiguousarray(quality_model.seen_from(images, view)))
        assert np.allclose(turned.probability, said.probability, rtol=1e-9)
        assert np.allclose(turned.grids, quality_model.seen_from(said.grids, view), rtol=1e-9)
    # One view alone would say otherwise, so the test can fail.
    once = [
        quality_model.judge(model.data, quality_model.seen_from(images, view), 1.0).probability
        for view in (0, 1)
    ]
    assert not np.allclose(*once, rtol=1e-9)


def test_evidence_is_combined_as_it_was_learned():
    random = np.random.default_rng(0)
    grids = random.normal(0, 4, (5, 3, 4))
    flat = grids.reshape(5, -1).astype(np.float32)
    with_keras = np.asarray(quality_network._combined(flat))[:, 0]
    ours = quality_model.combined(grids, quality_network.SHARPNESS)
    assert np.allclose(with_keras, ours, atol=1e-5)
    alone = np.full((1, 2, 2), -40.0)
    alone[0, 0, 0] = quality_model.log_odds(np.array(0.7)) + np.log(4)
    said = quality_model.combined(alone, 1.0)
    assert 1 / (1 + np.exp(-said[0])) == pytest.approx(0.7)
    assert quality_model.heat(alone, 1.0, 0.7)[0, 0, 0] == pytest.approx(0.5)
