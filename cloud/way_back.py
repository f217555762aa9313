"""The way back of a rollout: what boards run now, released again under a higher version.

Boards refuse a version below the one that they run, whoever asks. So what a rollout goes back to
is made, signed and published before it begins; see SPEC.md, "Rollouts".
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey
from fog_node.protocol.manifest import Manifest, encode_bundle, parse_bundle, sign_manifest
from fog_node.protocol.transactions import MAX_NAME_CHARS, Release

from .errors import ReleaseError
from .release import Prepared

SUFFIX = "-back"
# What may differ between two manifests of one model.
_OWN = {"name": "", "version": 1, "min_version": 0, "time": 0}


def name_of(release: str) -> str:
    """Name of the way back of a release of this name."""
    return release[: MAX_NAME_CHARS - len(SUFFIX)] + SUFFIX


def prepare(
    bundle: bytes,
    stable: Release,
    key: SigningKey,
    founding: Founding,
    name: str,
    version: int,
    time_ms: int,
) -> Prepared:
    """Sign a bundle's model once more; nothing is sent.

    Args:
        bundle: of what boards run now.
        stable: its release, whose metrics and data set hold for this one, too.
        key: of a member with the role trainer.
        founding: of the consortium.
        name, version: of the new release; the version above all that boards may run meanwhile.
        time_ms: ms since 1970.

    Raises:
        ReleaseError: it is no model's bundle, or not as the format wants it.
    """
    try:
        held = parse_bundle(bundle)
        if not isinstance(held.manifest, Manifest):
            raise ReleaseError(f"{stable.name}: is no model", "firmware has no rollouts")
        manifest = replace(held.manifest, name=name, version=version, min_version=0, time=time_ms)
        signed = sign_manifest(key, manifest, founding.chain_id)
        again = encode_bundle([signed], held.payload)
        release = replace(
            stable,
            name=name,
            version=version,
            manifest=hashlib.sha256(signed).digest(),
            bundle=hashlib.sha256(again).digest(),
            size=len(again),
            time=time_ms,
        )
        return Prepared(Release.decode(release.encode()), again)
    except ProtocolError as error:
        raise ReleaseError(f"{stable.name}: {error}", "release it anew") from error


def is_same_model(one: Manifest, other: Manifest) -> bool:
    """Whether boards judge alike by both: all but names, versions and times is equal."""
    return replace(one, **_OWN) == replace(other, **_OWN)  # type: ignore[arg-type]
