"""Counts what signing and inference take, on a board that counts instructions (`hil_counter`).

Each function prints one JSON object. For `fogline bench board`, which starts them.
"""

import gc
import hashlib
import json

import hil_counter

SECRET = bytes(range(1, 33))
GC_THRESHOLD_BYTES = 16 * 1024  # as boot.py has it
FILLER_BYTES = 1000


def _free():
    gc.collect()
    return gc.mem_free()


def _say(**fields):
    print(json.dumps(fields))


def _digest(number):
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def _fill(leave):
    """Take the heap but for about `leave` bytes; returns what keeps it."""
    kept = []
    gc.collect()
    try:
        while gc.mem_free() - leave > FILLER_BYTES:
            kept.append(bytearray(FILLER_BYTES - 40))
    except MemoryError:
        pass
    return kept


def signing(rounds, tight_bytes):
    """Count table, signatures, public key and agreement, with the table in flash.

    Args:
        rounds: signatures, each of another digest.
        tight_bytes: one more is made with only so much of the heap free.
    """
    heap = _free()
    from fogline import flash, p256, p256_points
    from fogline.modules import forget

    # Its names stay, and are no part of the table that it makes.
    del p256_points
    forget("p256_points")
    code = heap - _free()
    before = _free()
    prepare = hil_counter.measure(p256.prepare, flash.Flash(""))
    table = before - _free()
    gc.threshold(GC_THRESHOLD_BYTES)
    counts = []
    for number in range(rounds):
        gc.collect()
        counts.append(hil_counter.measure(p256.sign, SECRET, _digest(number)))
    gc.threshold(-1)
    free = _free()
    p256.sign(SECRET, _digest(0))
    garbage = free - gc.mem_free()
    public = p256.public_key(SECRET)
    gc.collect()
    public_count = hil_counter.measure(p256.public_key, SECRET)
    gc.collect()
    agreement = hil_counter.measure(p256.ecdh, SECRET, public)
    kept = _fill(tight_bytes)
    tight_free = _free()
    tight = hil_counter.measure(p256.sign, SECRET, _digest(0))
    _say(
        heap_free=heap,
        code_bytes=code,
        table_bytes=table,
        table=prepare,
        signatures=counts,
        garbage_bytes=garbage,
        public_key=public_count,
        agreement=agreement,
        tight_free=tight_free,
        tight_signature=tight,
        filled=len(kept),
    )


def inference(path, kernel, seed):
    """Count one inference of the model at `path`, as a whole and by operator.

    Args:
        kernel: a name of `kernels.available`, None to say which there are.
        seed: byte i of the inputs is (i * seed) & 255.
    """
    heap = _free()
    from fogline import kernels
    from fogline.tflite import Model, unload

    if kernel is None:
        _say(kernels=kernels.available())
        return
    interpreter = heap - _free()
    before = _free()
    with open(path, "rb") as file:
        data = file.read()
    gc.threshold(GC_THRESHOLD_BYTES)
    kernels.use(kernel)
    model = Model(data)
    costs = model._plan.costs  # noqa: SLF001 - a test may look inside
    model.allocate()
    loaded = _free()
    size = len(data)
    data = None
    unload()
    gc.threshold(-1)
    after = _free()
    inputs = []
    at = 0
    for tensor in model.inputs:
        inputs.append(bytes((at + i) * seed & 255 for i in range(tensor.bytes)))
        at += tensor.bytes
    outputs = model.invoke(inputs)
    gc.collect()
    whole = hil_counter.measure(model.invoke, inputs)
    gc.collect()
    operators = []
    for (name, work), (function, arguments) in zip(costs, model._program):  # noqa: SLF001
        operators.append([name, hil_counter.measure(function, *arguments), work])
    _say(
        heap_free=heap,
        interpreter_bytes=interpreter,
        file_bytes=size,
        model_bytes=before - after,
        arena_bytes=model.arena_bytes,
        loading_free_bytes=loaded,
        free_bytes=after,
        instructions=whole,
        work=model.work,
        operators=operators,
        output=b"".join(bytes(output) for output in outputs).hex(),
    )
