"""`fogline bench board`: signing and inference in instructions, on the boards that QEMU plays.

And what lives in their heap while a board samples, signs and judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import loads
from pathlib import Path
from statistics import mean
from typing import Any

from tools.bench import machine
from tools.bench.board_model import INPUT_SEED, auto_encoder, reference, small_layers
from tools.errors import ToolError, UsageError
from tools.firmware_compact import compact
from tools.firmware_files import FIRMWARE
from tools.hil import life
from tools.hil.payload import firmware_for
from tools.hil.targets import open_target
from tools.outputs import write_json

TARGETS = ("qemu-arm", "qemu-rv32")

# What a board may take; the ratios are of these.
SIGNATURE_LIMIT = 10_000_000
VIPER_LIMIT = 25.0
ASSEMBLER_LIMIT = 10.0

SIGNATURES = 5
TIGHT_BYTES = 32 * 1024  # of heap, for one more signature
_TIMEOUT_S = 300.0


def run(
    model: Path | None = None,
    targets: Sequence[str] = TARGETS,
    signatures: int = SIGNATURES,
    json: Path | None = None,
) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    model: a full-int8 `.tflite` file; by default one of the kind that `fogline train` makes, and
        besides, held against no limit, one of layers with little work for each output.
    targets: of `TARGETS`. signatures: how many. json: where to write the result too.

    Raises UsageError for a target that counts nothing, ToolError for a file that cannot be read, a
    model that boards refuse, and where QEMU or its firmware is missing.
    """
    for name in targets:
        if name not in TARGETS:
            raise UsageError(f"--target: {name!r} counts no instructions; {', '.join(TARGETS)} do")
    models = _models(model)
    references = {key: reference(data)[1] for key, data in models.items()}
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "limits": {
            "signature": SIGNATURE_LIMIT,
            "per_mac_viper": VIPER_LIMIT,
            "per_mac_assembler": ASSEMBLER_LIMIT,
            "live_heap_bytes": life.LIMIT_BYTES,
        },
        "model": {
            "file": str(model) if model else "auto-encoder",
            "bytes": len(models["inference"]),
        },
        "targets": {
            name: _measure(name, models, signatures, references)
            | {"life": life.run(name).as_json()}
            for name in targets
        },
    }
    _show(result)
    if json is not None:
        write_json(json, result)
    return result


def _models(path: Path | None) -> dict[str, bytes]:
    """The models by the key of what is measured of them."""
    if path is None:
        return {"inference": auto_encoder(), "small_layers": small_layers()}
    try:
        return {"inference": path.read_bytes()}
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; name a .tflite file") from error


def _measure(
    name: str, models: Mapping[str, bytes], signatures: int, references: Mapping[str, bytes]
) -> dict[str, Any]:
    target = open_target(name, count_instructions=True)
    try:
        about = target.about()
        target.put(firmware_for(about))
        target.put(
            {
                "measure.py": compact(FIRMWARE / "tests" / "measure.py", FIRMWARE).text.encode(),
                **{f"{key}.tflite": data for key, data in models.items()},
            }
        )

        def ask(call: str) -> dict[str, Any]:
            output = target.run(f"import measure\nmeasure.{call}", timeout_s=_TIMEOUT_S).checked()
            answer: dict[str, Any] = loads(output)
            return answer

        kernels = ask("inference('', None, 0)")["kernels"]
        counted = {
            key: {
                kernel: _inference(
                    ask(f"inference('{key}.tflite', {kernel!r}, {INPUT_SEED})"), references[key]
                )
                for kernel in kernels
            }
            for key in models
        }
        for kernel, said in counted["inference"].items():
            limit = VIPER_LIMIT if kernel == "viper" else ASSEMBLER_LIMIT
            said |= {"limit": limit, "ratio": said["per_mac"] / limit}
        return {
            "machine": about.machine,
            "micropython": about.version,
            "heap_bytes": about.heap_bytes,
            "signing": _signing(ask(f"signing({signatures}, {TIGHT_BYTES})")),
            **counted,
        }
    finally:
        target.close()


def _signing(counted: Mapping[str, Any]) -> dict[str, Any]:
    average = mean(counted["signatures"])
    return {
        "instructions": average,
        "most": max(counted["signatures"]),
        "signatures": len(counted["signatures"]),
        "limit": SIGNATURE_LIMIT,
        "ratio": average / SIGNATURE_LIMIT,
        "table_instructions": counted["table"],
        "public_key_instructions": counted["public_key"],
        "agreement_instructions": counted["agreement"],
        "code_bytes": counted["code_bytes"],
        "table_bytes": counted["table_bytes"],
        "garbage_bytes": counted["garbage_bytes"],
        "tight": {
            "heap_free": counted["tight_free"],
            "instructions": counted["tight_signature"],
        },
    }


def _inference(counted: Mapping[str, Any], reference: bytes) -> dict[str, Any]:
    return {
        "instructions": counted["instructions"],
        "macs": counted["work"],
        "per_mac": counted["instructions"] / counted["work"],
        "equal_to_litert": bytes.fromhex(counted["output"]) == reference,
        "heap_free_before": counted["heap_free"],
        "heap_free_loading": counted["loading_free_bytes"],
        "heap_free_after": counted["free_bytes"],
        "interpreter_bytes": counted["interpreter_bytes"],
        "file_bytes": counted["file_bytes"],
        "arena_bytes": counted["arena_bytes"],
        "model_bytes": counted["model_bytes"],
        "operators": [
            {"name": name, "instructions": count, "macs": work, "per_mac": count / work}
            for name, count, work in counted["operators"]
        ],
    }


def _show(result: Mapping[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    print(f"{'model':10} {result['model']['file']}, {result['model']['bytes']} bytes")
    for name, target in result["targets"].items():
        print(f"\n{name}: {target['machine']}, MicroPython {target['micropython']}", end="")
        print(f", {target['heap_bytes']} bytes of heap")
        _show_signing(target["signing"])
        for kernel, counted in target["inference"].items():
            _show_inference(kernel, counted)
        for kernel, counted in target.get("small_layers", {}).items():
            _show_inference(f"{kernel}, small layers", counted)
        _show_life(target["life"])


def _show_life(counted: Mapping[str, Any]) -> None:
    print(
        f"  {'at work':10} {counted['held_bytes']:8} bytes live in the heap"
        f"   limit {counted['limit_bytes']}, two thirds of the {counted['board_heap_bytes']} of"
        f" {counted['board']}   ratio {counted['ratio']:.2f}"
    )


def _show_signing(counted: Mapping[str, Any]) -> None:
    print(
        f"  signature  {counted['instructions'] / 1e6:8.2f} M instructions"
        f"   limit {counted['limit'] / 1e6:.0f} M   ratio {counted['ratio']:.2f}"
    )
    tight = counted["tight"]
    tight_free = tight["heap_free"]
    print(f"  {'':10} {tight['instructions'] / 1e6:8.2f} M with {tight_free} bytes of heap free")
    for key in ("table", "public_key", "agreement"):
        title = key.replace("_", " ")
        print(f"  {title:10} {counted[key + '_instructions'] / 1e6:8.2f} M")
    print(
        f"  {'memory':10} {counted['table_bytes']} bytes for the table's file,"
        f" {counted['code_bytes']} of code,"
        f" {counted['garbage_bytes']} to be collected after a signature"
    )


def _show_inference(kernel: str, counted: Mapping[str, Any]) -> None:
    limit = ""
    if "limit" in counted:
        limit = f"   limit {counted['limit']:.0f}   ratio {counted['ratio']:.2f}"
    equal = "the bytes of LiteRT" if counted["equal_to_litert"] else "NOT THE BYTES OF LITERT"
    print(
        f"  {kernel:10} {counted['instructions'] / 1e6:8.3f} M instructions"
        f" {counted['per_mac']:6.2f} per multiply-accumulate{limit}   {equal}"
    )
    before = counted["heap_free_before"]
    print(
        f"  {'':10} heap: {before - counted['heap_free_after']} bytes while it runs, of them"
        f" {counted['arena_bytes']} the arena;"
        f" {before - counted['heap_free_loading']} while it is loaded"
    )
    for operator in counted["operators"]:
        print(
            f"    {operator['name']:26} {operator['instructions']:9} {operator['macs']:8} MACs"
            f" {operator['per_mac']:8.2f}"
        )
