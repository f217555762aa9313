"""A board that installs the releases it is given (MicroPython), for test_update.py.

Arguments: a directory for the flash, the file of the release vectors, then for each release
its name there and its version, as in v1=1. Plays the gateway and the sensors itself. Prints a
line for every step.
"""

import hashlib
import json
import sys

from fogline import cbor
from fogline.flash import Flash
from fogline.update import TRIAL_VERDICTS, Updater

SENT_BYTES = 100


def say(*words):
    print(*words)


def main(directory, vectors, *wanted):
    with open(vectors) as file:  # noqa: PTH123 - MicroPython has no pathlib
        releases = json.load(file)
    updater = Updater(
        Flash(directory),
        [bytes.fromhex(releases["release_key"])],
        bytes.fromhex(releases["chain_id"]),
        "test",
        releases["channels"],
        lambda state, version, digest, reason, bundle=None: say(state, version, reason),
    )
    updater.start()
    say("started", updater.version)
    time_ms = 0
    for release in wanted:
        name, version = release.split("=")
        data = bytes.fromhex(releases["bundles"][name])
        if int(version) > updater.version:
            download(updater, data, int(version))
        if updater.judge is None:  # refused after too many starts
            return
        verdicts = 0
        while verdicts < TRIAL_VERDICTS:
            time_ms += 1000
            if updater.push((1.0, 2.0), time_ms):
                verdicts += 1
                say("verdict", updater.version)
        say("confirmed", updater.version)


def download(updater, data, version):
    digest = hashlib.sha256(data).digest()
    announcement = {"bundle": digest, "size": len(data), "name": "test", "version": version}
    updater.announce(cbor.encode(announcement))
    while True:
        request = updater.next_request()
        if request is None:
            return
        _, offset, length = request
        part = data[offset : offset + min(length, SENT_BYTES)]
        updater.chunk([digest, offset, len(data), part])
        say("chunk", offset)


main(*sys.argv[1:])
