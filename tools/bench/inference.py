"""`fogline bench inference`: the board's interpreter against LiteRT's reference kernels in C."""

from __future__ import annotations

import subprocess
from json import loads
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.bench import machine
from tools.demo.boards import find_micropython
from tools.errors import ToolError, UsageError
from tools.outputs import write_json

_FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
_HEAP = "16m"
_TIMEOUT_S = 300


def run(model: Path, runs: int = 200, json: Path | None = None) -> dict[str, Any]:
    """Measure, print, and give what was printed.

    model: a full-int8 `.tflite` file with one input. runs: inferences, each on a new random
    input. json: where to write the result too.

    Raises UsageError for a number of runs that is not positive, ToolError for a file that
    cannot be read or a model that boards refuse.
    """
    if runs <= 0:
        raise UsageError(f"runs: {runs} is not positive")
    try:
        data = model.read_bytes()
    except OSError as error:
        raise ToolError(f"{model}: {error.strerror}; name a .tflite file") from error
    litert = _litert(data)
    shape = litert.get_input_details()[0]["shape"]
    inputs = np.random.default_rng(0).integers(-128, 128, (runs, *shape)).astype(np.int8)
    board = _on_a_board(data, inputs)
    board_us = median(board["us"])
    reference = [_under_litert(litert, values) for values in inputs]
    reference_us = median(spent for spent, _ in reference)
    pairs = zip(board["outputs"], reference, strict=True)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "model": {"ops": board["ops"], "arena_bytes": board["arena"], "macs": board["work"]},
        "board_us": board_us,
        "reference_us": reference_us,
        "ratio": board_us / reference_us,
        "macs_per_s": board["work"] / board_us * 1e6,
        "equal": sum(output == expected for output, (_, expected) in pairs),
        "runs": runs,
    }
    _show(result)
    if json is not None:
        write_json(json, result)
    return result


def _on_a_board(data: bytes, inputs: npt.NDArray[np.int8]) -> dict[str, Any]:
    """What firmware/check_model.py says under MicroPython's unix port."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(data)
        path.with_name("model.tflite.in").write_bytes(inputs.tobytes())
        done = subprocess.run(
            [find_micropython(), "-X", f"heapsize={_HEAP}", _FIRMWARE / "check_model.py", path],
            env={"MICROPYPATH": f"{_FIRMWARE}:.frozen"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    if not done.stdout:
        raise ToolError(f"MicroPython failed: {done.stderr.strip()}; run the firmware's tests")
    said: dict[str, Any] = loads(done.stdout)
    if "error" in said:
        raise ToolError(f"the board refuses the model: {said['error']}")
    return said


def _under_litert(litert: Any, values: npt.NDArray[np.int8]) -> tuple[float, str]:
    """Microseconds of an inference, and its output in hex."""
    litert.set_tensor(litert.get_input_details()[0]["index"], values)
    begin = perf_counter_ns()
    litert.invoke()
    spent = perf_counter_ns() - begin
    output = litert.get_tensor(litert.get_output_details()[0]["index"])
    return spent / 1000, output.tobytes().hex()


def _litert(data: bytes) -> Any:
    # Only those who train have it.
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        model = Interpreter(
            model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        model.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ToolError(f"LiteRT refuses the model: {error}; name a .tflite file") from error
    return model


def _show(result: dict[str, Any]) -> None:
    for key, value in result["machine"].items():
        print(f"{key:10} {value}")
    model = result["model"]
    print(f"\n{'model':10} {model['macs']} multiply-accumulates, {', '.join(model['ops'])}")
    print(f"{'arena':10} {model['arena_bytes']} bytes")
    print(f"{'board':10} {result['board_us']:8.1f} us {result['macs_per_s'] / 1e6:8.0f} M/s")
    print(f"{'LiteRT':10} {result['reference_us']:8.1f} us, the reference kernels in C")
    print(f"{'ratio':10} {result['ratio']:8.2f} x the time of LiteRT")
    print(f"{'equal':10} {result['equal']} of {result['runs']} outputs")
