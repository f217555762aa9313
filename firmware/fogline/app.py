"""The board's life: self-test, key, configuration, then sampling until the driver ends."""

import asyncio
import sys

import drivers
import launcher

from . import VERSION, board, console, p256
from .clock import Clock, ask_ntp
from .errors import FoglineError, RestartNeeded
from .flash import Flash
from .journal import Journal
from .keeper import Keeper
from .modules import forget
from .outbox import DIRECTORY, Outbox
from .sampler import Sampler
from .stats import Stats
from .tasks import first
from .updates import Models, OwnFiles
from .uplink import ID_BYTES, MAX_REASON_CHARS, Uplink

EXIT_DONE = 0
EXIT_REFUSED = 1
FLUSH_TIMEOUT_MS = 1_000
NTP_RETRY_MS = 5_000
NTP_AGAIN_MS = 3_600_000
# Far more often than the watchdog wants it: a model or a signature may take a second.
FEED_MS = 500


def main():
    """Run the board in the current directory; returns the process's exit status."""
    wire = None
    try:
        settings = _settings()
        if settings.serial is not None:
            from .serial_link import open_wire

            wire = open_wire(settings.serial)
            if wire.carries_console:
                console.write = wire.print
        asyncio.run(_run(settings, wire))
    except FoglineError as error:
        console.say("refused", error=str(error))
        return EXIT_REFUSED
    except RestartNeeded as error:
        console.say("restart", reason=str(error))
        return launcher.EXIT_RESTART
    except KeyboardInterrupt:
        console.say("interrupted")
        return EXIT_REFUSED
    except Exception as error:  # noqa: BLE001 - a defect of ours must be seen on the console
        console.say("refused", error="unexpected: " + type(error).__name__)
        sys.print_exception(error, sys.stderr)  # type: ignore[arg-type]  # a stream it is
        return EXIT_REFUSED
    finally:
        if wire is not None:
            wire.close(FLUSH_TIMEOUT_MS)
            console.write = print
    return EXIT_DONE


def _settings():
    """Load the settings, and let go of the 10 KB of code that has checked them."""
    from . import config

    try:
        return config.load()
    finally:
        forget("config", "checks")


def _key(flash):
    """Return the board's key, and let go of what has tested and read it."""
    from . import keystore

    try:
        p256.prepare(flash)
        return keystore.load_or_create()
    finally:
        forget("keystore", "selftest")


def _driver(settings):
    """Return the driver, and let go of what has checked it and of pins that nobody asked for."""
    try:
        return drivers.create(settings.driver, console.say)
    finally:
        forget("checks")
        board.settle()


async def _run(settings, wire):
    flash = Flash("")
    key = _key(flash)
    outbox = Outbox(DIRECTORY, settings.outbox_bytes, key.new)
    forget("outbox_reader")
    driver = _driver(settings)
    _say_boot(key, outbox, driver)
    clock = Clock(flash, key.new)
    journal = Journal(outbox, flash)
    keeper = Keeper(key, settings.chain_id, journal)
    keeper.finish()
    stats = Stats()

    def report(state, version, digest, reason, bundle=None):
        sha256 = digest and digest.hex()
        console.say("model", state=state, version=version, sha256=sha256, reason=reason)
        sampler.model_changed()
        if state == "rejected":
            bundle = digest
        if bundle:
            uplink.outcome = [bundle[:ID_BYTES], state, reason[:MAX_REASON_CHARS]]
        uplink.announce()

    firmware, keys = _make_firmware(flash, settings)
    updater = Models(
        flash,
        keys,
        settings.chain_id,
        settings.device_type,
        [channel.name for channel in driver.channels],
        report,
    )
    tasks = [keeper.run()]
    wifi = None
    if settings.wifi is not None:
        from .wifi import Wifi

        wifi = Wifi(settings.wifi)
        tasks.append(wifi.run())
    uplink = Uplink(settings, key, journal, stats, updater, firmware, keeper, clock, wire, wifi)
    sampler = Sampler(settings, key, journal, driver, updater, stats, uplink, keeper, clock)
    keeper.changed = uplink.rearranged

    async def work():
        await sampler.run()
        await uplink.drained()
        await uplink.close()

    async def look_after():
        while True:
            launcher.feed()
            if firmware.tick(clock.up_ms()):
                raise RestartNeeded("other files are to run")
            await asyncio.sleep_ms(FEED_MS)

    launcher.feed()
    updater.start()
    firmware.start()
    if settings.ntp is not None:
        has_network = lambda: uplink.is_connected if wifi is None else wifi.up  # noqa: E731
        tasks.append(_ask_ntp(settings.ntp, clock, has_network))
    await first(work(), look_after(), *uplink.coroutines(), *tasks)
    console.say("done", stats=stats.summary())


async def _ask_ntp(host, clock, has_network):
    """Ask for the time wherever there is a network, as long as no gateway has given it."""
    while True:
        await asyncio.sleep_ms(NTP_RETRY_MS if clock.now_ms() is None else NTP_AGAIN_MS)
        if not has_network() or isinstance(clock.by, bytes):
            continue
        now_ms = ask_ntp(host)
        if now_ms is not None and clock.asked_ntp(now_ms):
            console.say("time", now=now_ms // 1000, by="ntp")


def _make_firmware(flash, settings):
    """Return our own files' updater, and the list of whom to trust, which it may change."""
    from . import release_keys

    keys = release_keys.load(flash, settings.release_keys)
    forget("release_keys")

    def keep_keys(new):
        from . import release_keys

        release_keys.save(flash, settings.release_keys, new)
        keys[:] = new

    def report(state, version, digest, reason):
        sha256 = digest and digest.hex()
        console.say("firmware", state=state, version=version, sha256=sha256, reason=reason)

    return OwnFiles(flash, keys, settings.chain_id, report, keep_keys), keys


def _say_boot(key, outbox, driver):
    console.say(
        "boot",
        kid=key.kid.hex(),
        x=key.public[:32].hex(),
        y=key.public[32:].hex(),
        selftest="ok",
        firmware=VERSION,
        channels=[list(channel) for channel in driver.channels],
        next=outbox.next,
        waiting=outbox.waiting,
        lost=outbox.lost,
    )
