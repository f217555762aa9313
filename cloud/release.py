"""Signs a trained model and puts it on the chain, whence the boards get it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from fog_node.client import Client
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import MAX_PAYLOAD_BYTES, encode_bundle, sign_manifest
from fog_node.protocol.transactions import Body, Release

from .errors import ReleaseError
from .model_card import MODEL_FILE, ModelCard, read_model_file

log = logging.getLogger(__name__)

# What int8 may cost against float: one point of F1, or of windows judged alike where there
# are no labels.
MAX_F1_LOSS = 0.01
MIN_AGREEMENT = 0.99
F1_FLOAT, F1_INT8 = "f1_float", "f1_int8"
AGREEMENT = "float_int8_agreement"
# Metric that tells who let a release pass in spite of its loss.
OVERRULED_BY = "overruled_by "

FINAL_TIMEOUT_S = 120.0
POLL_S = 0.5
# Differences of decimal fractions are off by some 1e-17.
_ROUNDING = 1e-9


# tools.submit.submit with wait=False: signs a body as the key's next transaction and has a node
# admit it.
Submit = Callable[[Client, SigningKey, Body, Founding], Awaitable[object]]


@dataclass(frozen=True)
class Prepared:
    """A signed bundle and the transaction body that names it."""

    release: Release
    bundle: bytes = field(repr=False)


def check_metrics(
    metrics: dict[str, float], founding: Founding, overruled_by: str | None = None
) -> dict[str, float]:
    """Refuse a model that loses too much from float to int8.

    Args:
        metrics: has `f1_float` and `f1_int8`, or `float_int8_agreement` (0 to 1), or both.
        founding: tells who is a member.
        overruled_by: the member who takes the responsibility for a loss.

    Returns:
        The metrics to publish; where a loss was overruled, they say by whom.

    Raises:
        ReleaseError: too great a loss, not measured, or `overruled_by` is no member.
    """
    if overruled_by is not None and overruled_by not in {m.name for m in founding.members}:
        raise ReleaseError(
            f"overruled_by: {overruled_by!r} is no member of {founding.name}",
            "name one of the founding file's members",
        )
    has_f1 = F1_FLOAT in metrics and F1_INT8 in metrics
    if not has_f1 and AGREEMENT not in metrics:
        raise ReleaseError(
            f"metrics: lack {F1_FLOAT} and {F1_INT8}, and {AGREEMENT}",
            "evaluate the int8 model against the float model first",
        )
    losses = []
    if has_f1 and not metrics[F1_FLOAT] - metrics[F1_INT8] <= MAX_F1_LOSS + _ROUNDING:
        losses.append(f"F1 falls from {metrics[F1_FLOAT]:.4f} to {metrics[F1_INT8]:.4f}")
    if AGREEMENT in metrics and not metrics[AGREEMENT] >= MIN_AGREEMENT - _ROUNDING:
        losses.append(f"float and int8 agree on {metrics[AGREEMENT]:.2%} of the windows only")
    if not losses:
        return metrics
    if overruled_by is None:
        raise ReleaseError(
            f"int8 model: {' and '.join(losses)}; one point is allowed",
            "train again, or have a member overrule it by name (overruled_by)",
        )
    log.warning("release goes ahead though %s: overruled by %s", " and ".join(losses), overruled_by)
    return metrics | {OVERRULED_BY + overruled_by: 1.0}


def prepare(
    model_dir: Path,
    key: SigningKey,
    founding: Founding,
    name: str,
    version: int,
    time_ms: int,
    overruled_by: str | None = None,
) -> Prepared:
    """Sign the model in `model_dir` as one version; nothing is sent.

    Args:
        model_dir: holds `model.tflite` and `manifest.json`.
        key: of a member with the role trainer.
        founding: of the consortium.
        name, version: of the release; a version is above all earlier ones of its name.
        time_ms: ms since 1970.
        overruled_by: see `check_metrics`.

    Raises:
        ReleaseError: a file, a field or a metric is not as it must be, or not the key.
    """
    member = founding.member(key.kid)
    if member is None or "trainer" not in member.roles:
        raise ReleaseError(
            f"key: {key.kid.hex()} is no trainer's in {founding.name}",
            "sign with the key of a member that has the role trainer",
        )
    card = ModelCard.load(model_dir)
    if card.dataset is None:
        raise ReleaseError(
            f"{model_dir}: was not trained on sealed readings, so a release could not name them",
            "train on a data set that was collected from the chain",
        )
    metrics = check_metrics(card.metrics, founding, overruled_by)
    payload = read_model_file(model_dir / MODEL_FILE, MAX_PAYLOAD_BYTES)
    try:
        manifest = card.manifest(name, version, payload, time_ms)
        signed = sign_manifest(key, manifest, founding.chain_id)
        bundle = encode_bundle([signed], payload)
        release = Release(
            name=name,
            version=version,
            device_type=card.device_type,
            manifest=hashlib.sha256(signed).digest(),
            bundle=hashlib.sha256(bundle).digest(),
            size=len(bundle),
            metrics=tuple(sorted(metrics.items())),
            dataset=card.dataset,
            time=time_ms,
        )
        return Prepared(Release.decode(release.encode()), bundle)
    except ProtocolError as error:
        raise ReleaseError(f"{model_dir}: {error}", "correct it, or train again") from error


async def publish(
    client: Client,
    submit: Submit,
    key: SigningKey,
    founding: Founding,
    model_dir: Path,
    name: str,
    overruled_by: str | None = None,
) -> Prepared:
    """Release a model as the next version of `name`, and wait until that is final.

    Args:
        client: of a fog node.
        submit: has a node admit a transaction; need not wait until it is final.
        key, founding, model_dir, name, overruled_by: see `prepare`.

    Returns:
        What was released. All boards of its type may install it now; where the consortium stages
        releases, those that a rollout brings it to.

    Raises:
        ReleaseError: see `prepare`; or another release of this name came first, or it was
            not final after FINAL_TIMEOUT_S.
        ClientError: no node answers, or one refuses.
    """
    device_type = ModelCard.load(model_dir).device_type
    # Boards compare versions whatever the names are.
    versions = [r.version for r in await client.releases() if r.device_type == device_type]
    version = max(versions, default=0) + 1
    now_ms = time.time_ns() // 1_000_000
    prepared = prepare(model_dir, key, founding, name, version, now_ms, overruled_by)
    await publish_prepared(client, submit, key, founding, prepared)
    return prepared


async def publish_prepared(
    client: Client, submit: Submit, key: SigningKey, founding: Founding, prepared: Prepared
) -> None:
    """Put a signed release on the chain and its bundle on the nodes; see `publish`."""
    name, version = prepared.release.name, prepared.release.version
    await submit(client, key, prepared.release, founding)
    # Nodes take a bundle only after the transaction that names it.
    await client.put_blob(prepared.bundle)
    try:
        async with asyncio.timeout(FINAL_TIMEOUT_S):
            await _wait_final(client, prepared.release)
    except TimeoutError as error:
        raise ReleaseError(
            f"release {name} {version}: is not final after {FINAL_TIMEOUT_S:.0f} s",
            "it waits at the node and may still become final: see whether blocks are made, and "
            "look at the releases before releasing again",
        ) from error


async def _wait_final(client: Client, release: Release) -> None:
    while True:
        latest = await _latest(client, release.device_type, release.name)
        if latest is not None and latest[0] >= release.version:
            version, bundle = latest
            if bundle == release.bundle.hex():
                return
            raise ReleaseError(
                f"release {release.name} {release.version}: version {version} of another "
                "trainer came at the same time",
                "look at that release, and release again if yours shall follow it",
            )
        await asyncio.sleep(POLL_S)


async def _latest(client: Client, device_type: str, name: str) -> tuple[int, str] | None:
    """Version and bundle (SHA-256, hex) of the latest release of this name."""
    for release in await client.releases():
        if (release.device_type, release.name) == (device_type, name):
            return release.version, release.bundle
    return None
