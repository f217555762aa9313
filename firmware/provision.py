"""Makes the board's key, if it has none, and says what is to be enrolled; then ends.

The public key and the channels are put on the chain before the board sends its first pack.
Run as a program under an operating system; on a bare board whoever provisions it imports this and
calls `check` and `main` over the REPL.
"""

import hashlib
import sys

import drivers
from fogline import config, console, keystore
from fogline.errors import FoglineError
from fogline.outbox import DIRECTORY, Outbox

# What a challenge is signed under: nothing that a board signs otherwise begins so.
CHALLENGE_DOMAIN = b"fogline provision\0"


def main(challenge=None):
    """Run the self-test, make or load the key; returns the process's exit status.

    Args:
        challenge: bytes that the key signs too, behind CHALLENGE_DOMAIN, so that whoever asks
            knows that the private key is here.
    """
    try:
        settings = config.load()
        driver = drivers.create(settings.driver, console.say)
        key = keystore.load_or_create()
        if key.new:
            # So that a start finds that no number was used, rather than that they were lost.
            Outbox(DIRECTORY, settings.outbox_bytes, True)
        proof = None
        if challenge is not None:
            proof = key.sign(hashlib.sha256(CHALLENGE_DOMAIN + challenge).digest()).hex()
    except FoglineError as error:
        console.say("refused", error=str(error))
        return 1
    console.say(
        "key",
        kid=key.kid.hex(),
        x=key.public[:32].hex(),
        y=key.public[32:].hex(),
        channels=[list(channel) for channel in driver.channels],
        new=key.new,
        proof=proof,
    )
    return 0


def check(path):
    """Check settings that are not in force yet; says `settings`, or `refused` and why."""
    try:
        drivers.create(config.load(path).driver, console.say)
    except FoglineError as error:
        console.say("refused", error=str(error))
        return
    console.say("settings")


if __name__ == "__main__":
    sys.exit(main())
