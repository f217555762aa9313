"""Is a piece defective, and where: networks that look at its image.

Which images are there is in `quality_data`, which are learned from in `quality_split`, the networks
in `quality_network`, how they are run in `quality_model`, what they are held against in
`quality_baselines`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.errors import ModelError, RecordingError
from cloud.files import real_path
from cloud.images import Grey, read_all
from cloud.intervals import bootstrap
from cloud.model_files import SEEN_FILE, load_seen, read_card, write_card, written_whole
from cloud.near_duplicates import PRINT_SIDE, Prints, alike, prints_of
from cloud.plots import plot_heatmaps, plot_losses, plot_precision_recall
from cloud.tables import write_table

from .experiment_log import experiment_log
from .job import Job, Steps
from .quality_baselines import MAJORITY, Method, fit_baselines
from .quality_data import TEST, TRAIN, Pieces, find_images, has_split, joined, read_pieces
from .quality_heatmap import write_heatmap
from .quality_model import TASK, Floats, Judged, QualityModel, heat, judge, log_odds
from .quality_network import BOARD, FOG, SHARPNESS, Network, Variant, fit_network
from .quality_settings import EvaluateSettings, FolderSettings, PredictSettings
from .quality_split import (
    TEST_SHARE,
    VALIDATION_SHARE,
    Flags,
    Groups,
    check_enough,
    deal,
    group,
)
from .thresholds import best_threshold, f1, precision, recall

VARIANTS = (FOG, BOARD)
SIDES = (FOG.side, BOARD.side, PRINT_SIDE)
PUBLISHED = {"accuracy 0.998: casting set, its own split, which divides near-duplicates": 0.998}
HEATMAPS = "heatmaps"
# The threshold is found by a trial that is trained a part as long, without the images it is found
# by. These are few pieces, so they move it no further than this.
TRIAL_SHARE = 0.5
THRESHOLDS = (0.2, 0.8)
# A quick look at no more images.
QUICK_IMAGES = 1500
# So many images are shown with where: misjudged ones, and the surest defects.
SHOWN_HEATMAPS = 12
# Of an ESP32-S3.
BOARD_CLOCK_HZ = 240e6
_PREDICTED = ("file", "probability", "verdict", "threshold")
DEFECTIVE, GOOD = "defect", "ok"
_READ_AT_ONCE = 64


def train(data: Path, job: Job, settings: FolderSettings | None = None) -> dict[str, Any]:
    """Learn from a folder of images by class, and write the model's directory.

    Where it comes divided into `train` and `test`, `test` is left alone.

    Returns:
        The report, which is written as well.

    Raises:
        RecordingError: a folder or file is not as it must be. TrainingError: too little of a kind.
    """
    settings = settings or FolderSettings()
    _check_apart(data, job.out)
    where = data / TRAIN if has_split(data) else data
    pieces = _read([where], settings, job)
    groups = group(pieces.prints, pieces.defective, settings.alike)
    fitted = _fit(pieces, groups, np.ones(len(pieces.defective), np.bool_), where, job)
    card = {
        "task": TASK,
        "classes": pieces.found.counts(),
        "good": pieces.found.good,
        "seed": job.seed,
        "quick": job.quick,
        "sealed": False,
        "alike": settings.alike,
        "near_duplicates": groups.report(pieces.defective, job.seed),
        "contradictions": groups.contradictions(pieces.found.paths, pieces.defective),
        "learned": int(fitted.learned.sum()),
        "validated": int(fitted.validated.sum()),
        "variants": {name: trained.card() for name, trained in fitted.networks.items()},
    }
    with written_whole(job.out) as new:
        for name, trained in fitted.networks.items():
            (new / _file(name)).write_bytes(trained.network.int8.data)
            (new / _file(name, floats=True)).write_bytes(trained.network.float_data)
        np.save(new / SEEN_FILE, pieces.prints)
        write_card(new, card)
    return card


def predict(
    model: Path, data: Path, out: Path, settings: PredictSettings | None = None
) -> dict[str, Any]:
    """Write a CSV file: probability of a defect and verdict of each image.

    Raises:
        RecordingError: names the image. ModelError.
    """
    settings = settings or PredictSettings()
    judging = QualityModel.load(model, settings.variant)
    if settings.heatmaps is not None:
        _check_apart(data, settings.heatmaps)
    paths = find_images(data)
    root = data if data.is_dir() else data.parent
    rows, defects = [], 0
    for start in range(0, len(paths), _READ_AT_ONCE):
        chunk = paths[start : start + _READ_AT_ONCE]
        (images,) = read_all(chunk, (judging.side,))
        said = judging.judge(images)
        for path, probability, grid in zip(chunk, said.probability, said.grids, strict=True):
            decided = bool(probability >= judging.threshold)
            defects += decided
            name = path.relative_to(root)
            rows.append(
                (
                    name.as_posix(),
                    f"{probability:.6f}",
                    DEFECTIVE if decided else GOOD,
                    f"{judging.threshold:.6f}",
                )
            )
            if settings.heatmaps is not None:
                write_heatmap(settings.heatmaps / f"{name}.png", path, grid, judging)
    write_table(out, _PREDICTED, rows)
    said_of = {"images": len(rows), "defects": defects, "out": str(out)}
    if settings.heatmaps is not None:
        said_of["heatmaps"] = str(settings.heatmaps)
    return said_of


def evaluate(data: Path, job: Job, settings: EvaluateSettings | None = None) -> dict[str, Any]:
    """Measure by the protocol, or measure a model that was trained before.

    By the protocol, groups of near-duplicates are dealt to learning, validation and test; where
    `data` comes divided into `train` and `test`, that is kept to, and what of `test` has a
    near-duplicate in `train` is told.

    Raises:
        RecordingError, TrainingError, ModelError.
    """
    settings = settings or EvaluateSettings()
    _check_apart(data, job.out)
    if job.model is not None:
        return _measure(job.model, data, job, settings)
    divided = has_split(data)
    parts = [data / TRAIN, data / TEST] if divided else [data]
    pieces = _read(parts, settings, job)
    groups = group(pieces.prints, pieces.defective, settings.alike)
    if divided:
        judged = pieces.part == 1
        protocol = f"learned from {TRAIN}, judged by {TEST}, as they come"
    else:
        judged, protocol = _dealt(pieces, groups, data, job, settings)
    fitted = _fit(pieces, groups, ~judged, data, job)
    said, thresholds = _said(pieces, fitted, judged, job)
    true, number = pieces.defective[judged], groups.number[judged]
    results = [
        _row(name, values >= thresholds[name], true, number, job.seed)
        for name, values in said.items()
    ]
    results.sort(key=lambda row: -row["accuracy"])
    best = fitted.networks[FOG.name]
    _show(job.out, pieces, judged, best, said[_title(FOG.name, "int8")])
    plot_precision_recall(job.out / "precision_recall.png", said, true)
    leaked = groups.with_near_duplicate(judged, fitted.learned)[judged]
    decided = said[_title(FOG.name, "int8")] >= best.threshold
    result = {
        "task": TASK,
        "protocol": f"{protocol}; thresholds by a trial on learned images",
        "classes": pieces.found.counts(),
        "near_duplicates": groups.report(pieces.defective, job.seed),
        "contradictions": groups.contradictions(pieces.found.paths, pieces.defective),
        "learned": _counts(pieces, groups, fitted.learned),
        "validated": _counts(pieces, groups, fitted.validated),
        "judged": _counts(pieces, groups, judged),
        "judged_with_near_duplicate_learned": int(leaked.sum()),
        "seed": job.seed,
        "quick": job.quick,
        "published": PUBLISHED,
        "results": results,
        "accuracy_of_those_without": (
            float((decided == true)[~leaked].mean()) if (~leaked).any() else None
        ),
        "misjudged_by_int8": [
            str(path) for path in _chosen(pieces.found.paths, judged, decided != true)
        ][:50],
        "networks": {name: trained.card() for name, trained in fitted.networks.items()},
        "verdict": _verdict(results),
    }
    return job.keep(result)


@dataclass(frozen=True)
class _Pieces:
    """Images that were read.

    Attributes:
        found: which they are.
        part: number of the folder that each came from, int64 [n].
        squares: by the pixels a side, uint8 [n, side, side].
        prints: to find near-duplicates by.
    """

    found: Pieces
    part: npt.NDArray[np.int64] = field(repr=False)
    squares: Mapping[int, Grey] = field(repr=False)
    prints: Prints = field(repr=False)

    @property
    def defective(self) -> Flags:
        return self.found.defective

    def of(self, variant: Variant) -> Grey:
        return self.squares[variant.side]


@dataclass(frozen=True)
class _Trained:
    """A network, and the threshold that was found for it.

    Attributes:
        threshold: probability from which a piece is defective.
        validation: how good its trial was for images that it was not trained with.
    """

    network: Network
    threshold: float
    validation: dict[str, float]

    def model(self) -> QualityModel:
        variant = self.network.variant
        return QualityModel(
            self.network.int8.data, variant.side, SHARPNESS, variant.views, self.threshold,
            variant.on_board,
        )  # fmt: skip

    def card(self) -> dict[str, Any]:
        """What must be known to run it, and what it takes."""
        variant, int8 = self.network.variant, self.network.int8
        said: dict[str, Any] = {
            "file": _file(variant.name),
            "side": variant.side,
            "sharpness": SHARPNESS,
            "views": variant.views,
            "threshold": self.threshold,
            "reference_kernels": variant.on_board,
            "input_scale": int8.input_scale, "input_zero": int8.input_zero,
            "output_scale": int8.output_scale, "output_zero": int8.output_zero,
            "target": variant.target.name,
            "bytes": len(int8.data), "ops": list(int8.ops), "macs": int8.plan.macs,
            "validation": self.validation,
        }  # fmt: skip
        if variant.on_board:
            said["arena"] = int8.plan.arena
            said["seconds_at_240_mhz"] = variant.views * int8.plan.seconds(BOARD_CLOCK_HZ)
        return said


@dataclass(frozen=True)
class _Fitted:
    networks: Mapping[str, _Trained]
    learned: Flags
    validated: Flags


def _check_apart(data: Path, out: Path) -> None:
    """Raise RecordingError where a folder that is written would be taken for one of images."""
    if real_path(out).is_relative_to(real_path(data)):
        raise RecordingError(f"{out}: lies in {data}, among images", "name a folder elsewhere")


def _fewer(pieces: Pieces) -> Pieces:
    """Take every second, third or so image, of which there are QUICK_IMAGES at most."""
    step = -(-len(pieces.paths) // QUICK_IMAGES)
    return replace(pieces, paths=pieces.paths[::step], labels=pieces.labels[::step])


def _read(folders: Sequence[Path], settings: FolderSettings, job: Job) -> _Pieces:
    each = [read_pieces(folder, settings.good) for folder in folders]
    if job.quick:
        each = [_fewer(part) for part in each]
    found = joined(each)
    squares = read_all(
        found.paths, SIDES, lambda done, of: job.progress("reading images", done, of), job.pool
    )
    small = squares[-1]
    blank = np.flatnonzero((small == small[:, :1, :1]).all(axis=(1, 2)))
    if len(blank):
        raise RecordingError(
            f"{found.paths[blank[0]]}: shows nothing, all of it is alike, as do {len(blank) - 1} "
            "others",
            "take them out",
        )
    return _Pieces(
        found,
        np.repeat(np.arange(len(each)), [len(part.paths) for part in each]),
        dict(zip(SIDES[:-1], squares[:-1], strict=True)),
        prints_of(small),
    )


def _fit(pieces: _Pieces, groups: Groups, learned: Flags, where: Path, job: Job) -> _Fitted:
    """Train both networks on some of the images, and a trial of each without a part of these."""
    check_enough(groups.number[learned], pieces.defective[learned], str(where))
    random = np.random.default_rng(job.seed + 1)
    validated = deal(groups.number, pieces.defective, learned, VALIDATION_SHARE, random)
    job.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for variant in VARIANTS:
        epochs = variant.quick_epochs if job.quick else variant.epochs
        short = max(1, round(epochs * TRIAL_SHARE))
        parts.append(_Part(variant, learned, epochs))
        parts.append(_Part(variant, learned & ~validated, short, trial=True))
    shared = (pieces.squares, pieces.defective, groups.number, job.seed, job.within_parts)
    fits, networks, losses = {}, {}, []
    with experiment_log(job.out) as note:
        done = job.pool.map(_fit_part, parts, shared)
        for part, (network, noted) in zip(parts, done, strict=True):
            fits[part.variant.name, part.trial] = network
            losses.append(noted)
            for epoch, loss in enumerate(noted, start=1):
                note(f"{part.name}/loss", loss, epoch)
            job.progress("networks", len(fits), len(parts))
        for variant in VARIANTS:
            threshold, found = _validate(fits[variant.name, True], pieces, validated)
            for name, value in found.items():
                note(f"{variant.name} network, trial/{name}", value, 0)
            networks[variant.name] = _Trained(fits[variant.name, False], threshold, found)
    plot_losses(job.out / "loss.png", losses, "cross-entropy")
    return _Fitted(networks, learned, validated)


@dataclass(frozen=True)
class _Part:
    """A network to train.

    Attributes:
        chosen: images that it learns from.
        trial: whether a threshold is all that it is for.
    """

    variant: Variant
    chosen: Flags = field(repr=False)
    epochs: int
    trial: bool = False

    @property
    def name(self) -> str:
        return f"{self.variant.name} network{', trial' if self.trial else ''}"


def _fit_part(part: _Part, shared: Any) -> tuple[Network, list[float]]:
    """Train a network; the loss of each epoch."""
    squares, defective, groups, seed, progress = shared
    noted: list[float] = []
    progress(part.name, 0, part.epochs)

    def told(epoch: int, loss: float) -> None:
        noted.append(loss)
        progress(part.name, epoch, part.epochs)

    network = fit_network(
        part.variant, squares[part.variant.side][part.chosen], defective[part.chosen],
        groups[part.chosen], epochs=part.epochs, seed=seed, told=told,
    )  # fmt: skip
    return network, noted


def _judge(variant: Variant, data: bytes, pieces: _Pieces, chosen: Flags) -> Judged:
    """What a network says of images, as its target would."""
    images = pieces.of(variant)[chosen]
    return judge(data, images, SHARPNESS, views=variant.views, reference=variant.on_board)


def _validate(
    network: Network, pieces: _Pieces, validated: Flags
) -> tuple[float, dict[str, float]]:
    """Find the threshold, and say how good the network is there."""
    true = pieces.defective[validated]
    said = _judge(network.variant, network.int8.data, pieces, validated)
    # In the middle between two images by log odds, not by probability, where most are 0 or 1.
    best = 1 / (1 + np.exp(-best_threshold(log_odds(said.probability), true)))
    threshold = float(np.clip(best, *THRESHOLDS))
    decided = said.probability >= threshold
    return threshold, {
        "accuracy": _accuracy(decided, true),
        "f1": f1(decided, true),
        "recall": recall(decided, true),
    }


def _dealt(
    pieces: _Pieces, groups: Groups, data: Path, job: Job, settings: EvaluateSettings
) -> tuple[Flags, str]:
    """Which images are judged, a share of those of each kind; and how they were dealt, in words."""
    defective = pieces.defective
    number, how = groups.number, "about {} of images judged, in whole groups of near-duplicates"
    if settings.by_image:
        number = np.arange(len(defective))
        how = "{} of images judged, dealt one by one: near-duplicates divided"
    else:
        check_enough(number, defective, str(data))
    every = np.ones(len(defective), np.bool_)
    judged = deal(number, defective, every, TEST_SHARE, np.random.default_rng(job.seed))
    return judged, how.format(f"{TEST_SHARE:.0%}")


def _said(
    pieces: _Pieces, fitted: _Fitted, judged: Flags, job: Job
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Probabilities of a defect by networks and by simple methods, and the threshold of each."""
    said: dict[str, Floats] = {}
    thresholds: dict[str, float] = {}
    for name, trained in fitted.networks.items():
        network = trained.network
        for kind, data in (("int8", network.int8.data), ("float", network.float_data)):
            title = _title(name, kind)
            said[title] = _judge(network.variant, data, pieces, judged).probability
            thresholds[title] = trained.threshold
    images, held = pieces.of(FOG), fitted.validated
    for name, method in _baselines(pieces, fitted, job).items():
        said[name] = method(images[judged])
        found = best_threshold(method(images[held]), pieces.defective[held])
        # The most frequent class is no matter of a threshold.
        thresholds[name] = 0.5 if name == MAJORITY else found
    return said, thresholds


def _baselines(pieces: _Pieces, fitted: _Fitted, job: Job) -> dict[str, Method]:
    learned = fitted.learned & ~fitted.validated
    told = Steps(job, "baselines", 2)
    return fit_baselines(pieces.of(FOG)[learned], pieces.defective[learned], job.seed, told)


def _measure(directory: Path, data: Path, job: Job, settings: EvaluateSettings) -> dict[str, Any]:
    """Judge every image of a folder by a model that was trained before."""
    card = read_card(directory, TASK)
    seen: Prints = load_seen(directory, np.int8, (PRINT_SIDE, PRINT_SIDE))
    models = {variant.name: QualityModel.load(directory, variant.name) for variant in VARIANTS}
    pieces = _read([data], settings, job)
    groups = group(pieces.prints, pieces.defective, settings.alike)
    near = alike(pieces.prints, seen, settings.alike)
    known = np.zeros(len(pieces.defective), np.bool_)
    known[near.first] = True
    true = pieces.defective
    results = []
    job.out.mkdir(parents=True, exist_ok=True)
    for variant in VARIANTS:
        model = models[variant.name]
        said = model.judge(pieces.of(variant)).probability
        decided = said >= model.threshold
        title = _title(variant.name, "int8")
        results.append(_row(title, decided, true, groups.number, job.seed))
        if (~known).any():
            results.append(
                _row(
                    f"{title}, without near-duplicate learned", decided[~known], true[~known],
                    groups.number[~known], job.seed,
                )
            )  # fmt: skip
    guess = np.full(len(true), _most(card, str(directory)))
    results.append(_row(MAJORITY, guess, true, groups.number, job.seed))
    result = {
        "task": TASK,
        "protocol": "every image judged by a model that was trained before",
        "classes": pieces.found.counts(),
        "near_duplicates": groups.report(true, job.seed),
        "contradictions": groups.contradictions(pieces.found.paths, true),
        "judged_with_near_duplicate_learned": int(known.sum()),
        "seed": job.seed,
        "published": PUBLISHED,
        "results": results,
        "verdict": _verdict(results),
    }
    return job.keep(result)


def _most(card: Mapping[str, Any], where: str) -> bool:
    """Whether most images that were learned from are of defective pieces."""
    try:
        counts, good = dict(card["classes"]), int(card["classes"][card["good"]])
        return sum(int(count) for count in counts.values()) >= 2 * good
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: card is damaged ({error!r})", "train again") from error


def _accuracy(decided: npt.NDArray[Any], true: npt.NDArray[Any]) -> float:
    return float((decided == true).mean())


def _row(
    name: str, decided: Flags, true: Flags, groups: npt.NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Figures of one model; intervals draw whole groups of near-duplicates."""
    return {
        "model": name,
        **bootstrap(_accuracy, decided, true, groups=groups, seed=seed).row("accuracy"),
        **bootstrap(f1, decided, true, groups=groups, seed=seed).row("f1"),
        **bootstrap(precision, decided, true, groups=groups, seed=seed).row("precision"),
        **bootstrap(recall, decided, true, groups=groups, seed=seed).row("recall"),
        "groups_with_an_error": len(np.unique(groups[decided != true])),
    }


def _counts(pieces: _Pieces, groups: Groups, chosen: Flags) -> dict[str, int]:
    """How many images and groups of each kind."""
    said = {}
    for kind, of in (("defective", pieces.defective), ("good", ~pieces.defective)):
        said[f"{kind}_images"] = int((chosen & of).sum())
        said[f"{kind}_groups"] = len(np.unique(groups.number[chosen & of]))
    return said


def _show(
    out: Path, pieces: _Pieces, judged: Flags, trained: _Trained, probability: Floats
) -> None:
    """Write heat maps of what was misjudged, and of the defects that are most certain."""
    model, true = trained.model(), pieces.defective[judged]
    wrong = np.flatnonzero((probability >= trained.threshold) != true)
    certain = np.argsort(-probability * true, kind="stable")
    spread = certain[:: max(1, int(true.sum()) // SHOWN_HEATMAPS)]
    shown = np.array([*wrong[: SHOWN_HEATMAPS // 2], *spread])[:SHOWN_HEATMAPS]
    numbers = np.flatnonzero(judged)[shown]
    images = pieces.of(FOG)[numbers]
    grids = model.judge(images).grids
    titles = [
        f"{DEFECTIVE if pieces.defective[number] else GOOD}: {probability[at]:.2f}"
        for number, at in zip(numbers, shown, strict=True)
    ]
    heats = heat(grids, SHARPNESS, trained.threshold)
    plot_heatmaps(out / "heatmaps.png", images, heats, titles)
    for number, grid in zip(numbers, grids, strict=True):
        path = pieces.found.paths[number]
        write_heatmap(out / HEATMAPS / path.parent.name / f"{path.name}.png", path, grid, model)


def _chosen(paths: Sequence[Path], judged: Flags, flags: Flags) -> Iterable[Path]:
    return (paths[at] for at in np.flatnonzero(judged)[flags])


def _title(variant: str, kind: str) -> str:
    return f"network for {'boards' if variant == BOARD.name else 'fog nodes'}, {kind}"


def _file(name: str, *, floats: bool = False) -> str:
    return f"{name}{'_float' if floats else ''}.tflite"


def _verdict(results: Sequence[Mapping[str, Any]]) -> str:
    """Say plainly which is best, and whether a simple one would do."""
    ours = {_title(v.name, kind) for v in VARIANTS for kind in ("int8", "float")}
    by_name = {row["model"]: row for row in results}
    network = by_name[_title(FOG.name, "int8")]
    others = [row for row in results if not any(row["model"].startswith(name) for name in ours)]
    simple = max(others, key=lambda row: row["accuracy"])
    said = (
        f"the network for fog nodes, in int8, is right for {network['accuracy']:.2%} of images, "
        f"{simple['model']} for {simple['accuracy']:.2%}"
    )
    if simple["accuracy"] >= network["accuracy"]:
        return f"{said}: the simple method wins"
    return said
