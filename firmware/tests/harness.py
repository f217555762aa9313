"""Runs one module of tests on a target and says how each went, a line of JSON for each.

`test` is its name, `result` passed, failed, or memory (this heap is too small for it), `before` and
`after` are the bytes that the heap holds once it is collected, `why` is the traceback.
"""

import gc
import io
import json
import sys

MAX_WHY = 1500


def held():
    """Bytes that live in the heap."""
    gc.collect()
    return gc.mem_alloc() if hasattr(gc, "mem_alloc") else None


def tell(test, result, before, why=None):
    print(
        json.dumps({"test": test, "result": result, "before": before, "after": held(), "why": why})
    )


def why_of(error):
    """The traceback, in as much memory as there is."""
    try:
        text = io.StringIO()
        if hasattr(sys, "print_exception"):
            sys.print_exception(error, text)
        else:
            import traceback

            traceback.print_exception(error, file=text)
        return text.getvalue()[-MAX_WHY:]
    except MemoryError:
        return "MemoryError"


def is_memory(error):
    """Whether an error says that there is too little memory: ours end in `.memory`."""
    return isinstance(error, MemoryError) or str(getattr(error, "code", "")).endswith(".memory")


def main(module_name, names):
    """Run tests of a module by their names; a module that does not load fails as a whole."""
    before = held()
    try:
        module = __import__(module_name)
    except Exception as error:  # noqa: BLE001 - it may fail with anything
        result = "memory" if is_memory(error) else "failed"
        tell("import", result, before, why_of(error))
        return
    for name in names:
        before = held()
        why = None
        result = "passed"
        try:
            getattr(module, name)()
        except Exception as error:  # noqa: BLE001 - a test may fail with anything
            result = "memory" if is_memory(error) else "failed"
            why = why_of(error)
        tell(name, result, before, why)
