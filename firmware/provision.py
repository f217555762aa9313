"""Makes the board's key, if it has none, and says what is to be enrolled; then ends.

The public key and the channels are put on the chain before the board sends its first pack.
"""

import sys

import drivers
from fogline import config, console, keystore
from fogline.errors import FoglineError


def main():
    """Run the self-test, make or load the key; returns the process's exit status."""
    try:
        settings = config.load()
        driver = drivers.create(settings.driver, console.say)
        key = keystore.load_or_create()
    except FoglineError as error:
        console.say("refused", error=str(error))
        return 1
    console.say(
        "key",
        kid=key.kid.hex(),
        x=key.public[:32].hex(),
        y=key.public[32:].hex(),
        channels=[list(channel) for channel in driver.channels],
    )
    return 0


sys.exit(main())
