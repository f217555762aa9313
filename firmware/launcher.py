"""Which of our files run: those the board was provisioned with, or an update in one of two slots.

`boot.py` calls `select` before anything else of ours is imported. This file, `boot.py` and
`main.py` are all that an update never replaces, so they depend on nothing that one does. An update
that was not confirmed is on trial: a watchdog runs, and after MAX_TRIAL_STARTS starts the board
goes back to what it ran before.
"""

import json
import os
import sys
from binascii import crc32

STATE_FILE = "firmware.state"
# Slot 0 is what the board was provisioned with: the flash root, or MICROPYPATH.
SLOTS = ("", "fw_a", "fw_b")
MAX_TRIAL_STARTS = 3
MAX_REFUSED = 4
# The most that an RP2040's can be set to is 8,388 ms.
WATCHDOG_MS = 8_000
# What a process exits with that is to be started again.
EXIT_RESTART = 3
_MAX_STATE_BYTES = 2048
_CRC_BYTES = 4
_NEW = ".new"

# Running since this start; once it does, nothing but a reset stops it.
dog = None
# What select() found.
state = None


def fresh():
    """Return the state of a board that never took an update.

    slot: number of the slot that runs. version, bundle: of the update in it, 0 and None in
    slot 0. previous: [slot, version, bundle] to go back to, while on trial. starts: during the
    trial. download: [SHA-256, size, failed attempts] of a bundle on its way. refused: bundles
    not to be taken again. gone_back: why, to be told once. keys: those to trust once this is
    confirmed. Hashes and keys are hex.
    """
    return {
        "slot": 0, "version": 0, "bundle": None, "previous": None, "starts": 0,
        "download": None, "refused": [], "gone_back": None, "keys": [],
    }  # fmt: skip


def select():
    """Put the slot that runs on the path, and count the start if it is on trial."""
    global state
    state = load()
    if is_on_trial():
        state["starts"] += 1
        if state["starts"] > MAX_TRIAL_STARTS:
            go_back("the board started %d times during the trial" % MAX_TRIAL_STARTS)
        else:
            _try_save()
            watch()
    slot = SLOTS[state["slot"]]
    if slot and not _is_there(slot):
        go_back("its files are gone")
        slot = SLOTS[state["slot"]]
    if slot:
        sys.path.insert(0, slot)


def watch():
    """Start the watchdog, where there is one."""
    global dog
    try:
        from machine import WDT
    except ImportError:
        return
    dog = WDT(timeout=WATCHDOG_MS)


def feed():
    """Tell the watchdog, if one runs, that all is well."""
    if dog is not None:
        dog.feed()


def is_on_trial():
    """Whether an update runs that was not confirmed yet."""
    return state["previous"] is not None


def go_back(reason):
    """Be what the board was before this update; what cannot be stored is done again later."""
    old = state["previous"] or [0, 0, None]
    if old[0] and not _is_there(SLOTS[old[0]]):
        old = [0, 0, None]
    if state["bundle"] is not None:
        state["refused"] = (state["refused"] + [state["bundle"]])[-MAX_REFUSED:]
        state["gone_back"] = [state["version"], state["bundle"], reason]
    state["slot"], state["version"], state["bundle"] = old
    state["previous"] = None
    state["starts"] = 0
    state["keys"] = []
    _try_save()


def recover(error):
    """Go back and start anew where an update's files do not even load; else raise the error."""
    if not state["slot"]:
        raise error
    go_back("%s: %s" % (type(error).__name__, error))
    restart()


def restart():
    """Start the board anew. On an operating system: end, and ask whoever started us to."""
    try:
        from machine import reset
    except ImportError:
        sys.exit(EXIT_RESTART)
    reset()


def load():
    """Return what `save` stored last; that of a fresh board where there is nothing whole."""
    for name in (STATE_FILE, STATE_FILE + _NEW):
        try:
            with open(name, "rb") as file:
                data = file.read(_MAX_STATE_BYTES + _CRC_BYTES)
            body, check = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
            if crc32(body).to_bytes(_CRC_BYTES, "big") == check:
                found = json.loads(body)
                if set(found) == set(fresh()) and 0 <= found["slot"] < len(SLOTS):
                    return found
        except (OSError, ValueError, TypeError):
            pass
    return fresh()


def save():
    """Store the state in one step, as `fogline.flash` does; raises OSError."""
    body = json.dumps(state).encode()
    with open(STATE_FILE + _NEW, "wb") as file:
        file.write(body + crc32(body).to_bytes(_CRC_BYTES, "big"))
    os.rename(STATE_FILE + _NEW, STATE_FILE)


def _try_save():
    try:
        save()
    except OSError:
        pass  # what is counted is counted at the next start


def _is_there(slot):
    try:
        return bool(os.listdir(slot))
    except OSError:
        return False
