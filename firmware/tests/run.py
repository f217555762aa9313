"""Runs the board's tests inside MicroPython: `micropython firmware/tests/run.py [name ...]`.

Every function `test_*` of every module `test_*.py` here is one test, in the order of their
names; a name on the command line picks modules. Prints one line for each test. Exits with 1
if a test failed or none ran. Tests that need wires between pins are for a rig, and only named here.
"""

import gc
import os
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path[:0] = [HERE + "/..", HERE]


def main(names):
    """Run the modules `names` (all if empty); returns the exit code."""
    ran = failed = 0
    modules = sorted(name[:-3] for name in os.listdir(HERE) if is_test_file(name))
    for name in names:
        if name not in modules:
            print("FAIL no module " + name)
            failed += 1
    for module_name in modules:
        if names and module_name not in names:
            continue
        module = __import__(module_name)
        for test_name in sorted(dir(module)):
            if test_name.startswith("test_"):
                if needs_wires(module, test_name):
                    print("rig  " + module_name + "." + test_name)
                    continue
                ran += 1
                if not run(module_name + "." + test_name, getattr(module, test_name)):
                    failed += 1
        # A board's heap holds one module's tests, not those of all.
        del module
        sys.modules.pop(module_name, None)
        gc.collect()
    print(f"{ran} tests, {failed} failed")
    return 1 if failed or not ran else 0


def is_test_file(name):
    """Whether a file name is a test module's."""
    return name.startswith("test_") and name.endswith(".py")


def needs_wires(module, test_name):
    """Whether a test is for a rig, where pins are wired together."""
    needs = getattr(module, "NEEDS", ()) + getattr(module, "TEST_NEEDS", {}).get(test_name, ())
    return any(":" in need for need in needs)


def run(title, test):
    """Run one test; returns whether it passed."""
    try:
        test()
    except Exception as error:  # noqa: BLE001 - a test may fail with anything
        print("FAIL " + title)
        sys.print_exception(error)
        return False
    print("ok   " + title)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
