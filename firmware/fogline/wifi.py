"""The board's Wi-Fi: joined, and joined again whenever it is lost, with growing pauses.

`network` is imported here alone; a board whose table has no Wi-Fi has no use for this file.
MicroPython's own `reconnects` is switched off where there is such a setting (ESP32), so that one
place decides when to try: an access point that comes back after a power cut is not
stormed by all its boards at once.
"""

import asyncio
import os
import time

from . import console

JOIN_TIMEOUT_MS = 20_000
POLL_MS = 200
BACKOFF_MIN_MS = 1_000
BACKOFF_MAX_MS = 60_000

# network.STAT_*: numbers differ between ports, names do not; not every port has all.
_REASONS = (
    ("STAT_WRONG_PASSWORD", "wifi.password"),
    ("STAT_NO_AP_FOUND", "wifi.ssid"),
    ("STAT_NO_AP_FOUND_IN_RSSI_THRESHOLD", "wifi.weak"),
    ("STAT_NO_AP_FOUND_IN_AUTHMODE_THRESHOLD", "wifi.authmode"),
    ("STAT_NO_AP_FOUND_W_COMPATIBLE_SECURITY", "wifi.authmode"),
    ("STAT_ASSOC_FAIL", "wifi.refused"),
    ("STAT_HANDSHAKE_TIMEOUT", "wifi.password"),
    ("STAT_BEACON_TIMEOUT", "wifi.lost"),
    ("STAT_CONNECT_FAIL", "wifi.refused"),
)


class Wifi:
    """One station; `run` keeps it joined.

    Args:
        settings: the `wifi` section of board.json: ssid, password, country, hostname.
    """

    def __init__(self, settings):
        import network

        self._network = network
        self._settings = settings
        if settings.country is not None:
            network.country(settings.country)
        if settings.hostname is not None:
            network.hostname(settings.hostname)
        self._station = network.WLAN(network.STA_IF)
        self.up = False  # whether the board has an address now

    async def run(self):
        """Join, watch, join again; for ever."""
        pause_ms = BACKOFF_MIN_MS
        while True:
            reason = await self._join()
            if reason is None:
                pause_ms = BACKOFF_MIN_MS
                console.say("wifi", state="up", address=self._station.ifconfig()[0])
                self.up = True
                while self._station.isconnected():
                    await asyncio.sleep_ms(POLL_MS)
                self.up = False
                reason = "wifi.lost"
            console.say("wifi", state="down", reason=reason)
            self._leave()
            # Half of it and up to as much again, so that boards do not come in step.
            half = pause_ms // 2
            await asyncio.sleep_ms(half + half * os.urandom(1)[0] // 255)
            pause_ms = min(2 * pause_ms, BACKOFF_MAX_MS)

    async def _join(self):
        """Try once; returns None, or the reason why not."""
        station = self._station
        try:
            station.active(True)
            try:
                station.config(reconnects=0)
            except (ValueError, TypeError):
                pass  # a port that never tries by itself
            station.connect(self._settings.ssid, self._settings.password)
        except OSError as error:
            return f"wifi.driver: {error}"
        until = time.ticks_add(time.ticks_ms(), JOIN_TIMEOUT_MS)
        while not station.isconnected():
            reason = self._failure()
            if reason is not None:
                return reason
            if time.ticks_diff(until, time.ticks_ms()) < 0:
                return "wifi.timeout"
            await asyncio.sleep_ms(POLL_MS)
        return None

    def _failure(self):
        """The reason that the driver gives; None while it is still trying."""
        status = self._station.status()
        for name, reason in _REASONS:
            if status == getattr(self._network, name, None):
                return reason
        return None

    def _leave(self):
        """Let go of what is left of a connection; the radio starts afresh."""
        try:
            self._station.disconnect()
            self._station.active(False)
        except OSError:
            pass  # it was not connected, which is what is wanted
