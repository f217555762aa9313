"""A release names its data, its cost in int8 and its signer, or does not happen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cloud.errors import ReleaseError
from cloud.model_card import CARD_FILE, MODEL_FILE, ModelCard
from cloud.release import check_metrics, prepare, publish
from fog_node.protocol.dataset_reference import DatasetQuery, LabelsReference
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES, parse_bundle
from fog_node.protocol.transactions import DatasetReference, Release
from tools.vectors.hub import TIME_MS, World

PAYLOAD = b"a flatbuffer"
METRICS = {"f1_float": 0.75, "f1_int8": 0.745}
QUERY = DatasetQuery(6, (b"board--1",), None, TIME_MS, LabelsReference(bytes(32), 2))
REFERENCE = DatasetReference(bytes(range(32)), 3, 2, 5, QUERY)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def card(world) -> ModelCard:
    return ModelCard.of_manifest(world.manifest(), METRICS, REFERENCE)


@pytest.fixture
def model_dir(card, tmp_path):
    card.save(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(PAYLOAD)
    return tmp_path


class Node:
    """Takes a release, then its bundle, and calls it final after some questions."""

    def __init__(self, latest: list[tuple[str, str, int]] = (), patience: int = 2) -> None:
        self.listed = [
            SimpleNamespace(device_type=t, name=n, version=v, bundle="") for t, n, v in latest
        ]
        self.did: list[str] = []
        self.body: Release | None = None
        self.bundle = b""
        self._patience = patience

    async def releases(self):
        if self.bundle and self.body is not None:
            self._patience -= 1
            if self._patience == 0:
                self.settle(self.body)
        return self.listed

    def settle(self, body: Release) -> None:
        self.listed = [
            SimpleNamespace(
                device_type=body.device_type,
                name=body.name,
                version=body.version,
                bundle=body.bundle.hex(),
            )
        ]

    async def put_blob(self, data: bytes) -> None:
        assert self.body is not None, "a node refuses a bundle that no release names"
        assert hashlib.sha256(data).digest() == self.body.bundle
        self.did.append("blob")
        self.bundle = data

    async def submit(self, client, key, body, founding) -> None:
        assert client is self
        self.did.append("submit")
        self.body = body


def test_a_card_is_read_as_it_was_written(card, tmp_path):
    card.save(tmp_path)
    assert ModelCard.load(tmp_path) == card
    unsealed = replace(card, dataset=None)
    unsealed.save(tmp_path)
    assert ModelCard.load(tmp_path) == unsealed


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("window", 0, "manifest.window"),
        ("window", "2", "manifest.window"),
        ("need", 4, "manifest.need"),
        ("arena", -1, "manifest.arena"),
        ("input", [[8, 1200, -40000]], "manifest.input"),
        ("selftest", [], "manifest.selftest"),
        ("selftest", [{"in": "zz", "out": ""}], "not a model card"),
        ("selftest", 5, "not a model card"),
        ("metrics", {"f1": "high"}, "card.metrics.f1"),
        ("metrics", {"f1": float("nan")}, "card.metrics.f1"),
        ("metrics", [], "metrics"),
        ("dataset", {"root": "00"}, "card.dataset"),
        ("dataset", {"root": "00", "count": 1, "first": 1, "last": 1}, "card.dataset.root"),
        ("min_version", -1, "card.min_version"),
        ("more", 1, "card.more"),
    ],
)
def test_a_wrong_card_is_refused_by_field(model_dir, field, value, named):
    path = model_dir / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ReleaseError, match=named) as raised:
        ModelCard.load(model_dir)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [None, "", "[]", "{", "x" * 70_000])
def test_what_is_no_card(tmp_path, content):
    if content is not None:
        (tmp_path / CARD_FILE).write_text(content)
    with pytest.raises(ReleaseError, match=CARD_FILE):
        ModelCard.load(tmp_path)


def test_bundle_and_transaction_fit(world, model_dir):
    prepared = prepare(model_dir, world.trainer, world.founding, "anomaly", 3, TIME_MS)
    bundle = parse_bundle(prepared.bundle)
    bundle.verify([world.trainer.public], world.chain_id)
    assert bundle.payload == PAYLOAD
    expected = replace(
        world.manifest(),
        version=3,
        payload_sha256=hashlib.sha256(PAYLOAD).digest(),
        payload_size=len(PAYLOAD),
    )
    assert bundle.manifest == expected
    release = prepared.release
    assert (release.name, release.version, release.device_type) == (
        "anomaly",
        3,
        "water-circulation",
    )
    assert release.bundle == hashlib.sha256(prepared.bundle).digest()
    assert release.manifest == hashlib.sha256(bundle.signatures[0].raw).digest()
    assert release.size == len(prepared.bundle)
    assert dict(release.metrics) == METRICS
    assert release.dataset == REFERENCE


def test_only_a_trainer_may_sign(world, model_dir):
    with pytest.raises(ReleaseError, match="no trainer"):
        prepare(model_dir, world.operator, world.founding, "anomaly", 1, TIME_MS)


def test_a_model_of_unsealed_data_is_not_released(world, card, model_dir):
    replace(card, dataset=None).save(model_dir)
    with pytest.raises(ReleaseError, match="sealed"):
        prepare(model_dir, world.trainer, world.founding, "anomaly", 1, TIME_MS)


def test_a_model_too_large_for_boards(world, model_dir):
    (model_dir / MODEL_FILE).write_bytes(bytes(MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(ReleaseError, match=MODEL_FILE):
        prepare(model_dir, world.trainer, world.founding, "anomaly", 1, TIME_MS)


def test_a_name_that_is_none(world, model_dir):
    with pytest.raises(ReleaseError, match=r"manifest\.name"):
        prepare(model_dir, world.trainer, world.founding, "", 1, TIME_MS)


@pytest.mark.parametrize(
    "metrics",
    [
        {"f1_float": 0.75, "f1_int8": 0.74},  # exactly one point
        {"f1_float": 0.75, "f1_int8": 0.80},
        {"float_int8_agreement": 0.99},
        {"f1_float": 0.75, "f1_int8": 0.75, "float_int8_agreement": 1.0},
    ],
)
def test_a_small_loss_is_allowed(world, metrics):
    assert check_metrics(metrics, world.founding) == metrics


@pytest.mark.parametrize(
    "metrics",
    [
        {"f1_float": 0.75, "f1_int8": 0.7399},
        {"f1_float": 0.75, "f1_int8": float("nan")},
        {"float_int8_agreement": 0.9899},
        {"f1_float": 0.75, "f1_int8": 0.75, "float_int8_agreement": 0.5},
    ],
)
def test_a_loss_stops_the_release_unless_a_member_overrules_it(world, metrics, caplog):
    with pytest.raises(ReleaseError, match="overruled_by"):
        check_metrics(metrics, world.founding)
    with pytest.raises(ReleaseError, match="'nobody' is no member"):
        check_metrics(metrics, world.founding, "nobody")
    passed = check_metrics(metrics, world.founding, "operator")
    assert passed == metrics | {"overruled_by operator": 1.0}
    assert "overruled by operator" in caplog.text


@pytest.mark.parametrize("metrics", [{}, {"f1_float": 0.9}, {"f1_int8": 0.9}])
def test_a_loss_that_was_not_measured_cannot_be_overruled(world, metrics):
    with pytest.raises(ReleaseError, match="evaluate"):
        check_metrics(metrics, world.founding, "operator")


def test_that_nothing_is_overruled_in_vain_is_not_recorded(world):
    assert check_metrics(METRICS, world.founding, "operator") == METRICS


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("cloud.release.POLL_S", 0.0)


@pytest.mark.parametrize(
    ("latest", "version"),
    [
        ([], 1),
        ([("water-circulation", "anomaly", 7)], 8),
        ([("water-circulation", "other", 7), ("fan", "anomaly", 9)], 8),
    ],
)
async def test_publish(world, model_dir, quick, latest, version):
    node = Node(latest)
    prepared = await publish(node, node.submit, world.trainer, world.founding, model_dir, "anomaly")
    assert node.did == ["submit", "blob"]
    assert node.body == prepared.release
    assert node.body.version == version
    assert node.bundle == prepared.bundle


async def test_another_release_came_first(world, model_dir, quick):
    node = Node()
    node.settle = lambda body: Node.settle(node, replace(body, bundle=bytes(32)))
    with pytest.raises(ReleaseError, match="another trainer"):
        await publish(node, node.submit, world.trainer, world.founding, model_dir, "anomaly")


async def test_a_release_that_never_becomes_final(world, model_dir, quick, monkeypatch):
    monkeypatch.setattr("cloud.release.FINAL_TIMEOUT_S", 0.05)
    node = Node(patience=-1)
    with pytest.raises(ReleaseError, match="is not final"):
        await publish(node, node.submit, world.trainer, world.founding, model_dir, "anomaly")


async def test_nothing_is_sent_of_a_model_that_lost_too_much(world, card, model_dir):
    replace(card, metrics={"f1_float": 0.9, "f1_int8": 0.5}).save(model_dir)
    node = Node()
    with pytest.raises(ReleaseError, match="overruled_by"):
        await publish(node, node.submit, world.trainer, world.founding, model_dir, "anomaly")
    assert node.did == []
