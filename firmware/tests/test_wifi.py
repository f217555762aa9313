"""Wi-Fi that is not there, refuses, goes away and comes back, as MicroPython's `network` has it."""

import asyncio
import sys

from fogline import console, wifi
from fogline.config import Wifi as Settings

SETTINGS = Settings("hall 3", "correct horse", "KR", "pump-7")
SECONDS = 20


class Network:
    """Stands in for the module: what each attempt to join comes to is in `plan`."""

    STA_IF = 0
    STAT_IDLE = 1000
    STAT_CONNECTING = 1001
    STAT_GOT_IP = 1010
    STAT_NO_AP_FOUND = 201
    STAT_WRONG_PASSWORD = 202

    def __init__(self, plan):
        self.plan = plan
        self.attempts = []
        self.state = self.STAT_IDLE
        self.settings = {}
        self.active_now = False
        self.looks = 0  # how often it is still found connected

    def country(self, value):
        self.settings["country"] = value

    def hostname(self, value):
        self.settings["hostname"] = value

    def WLAN(self, interface):  # noqa: N802 - MicroPython's name
        assert interface == self.STA_IF
        return self

    def active(self, value):
        self.active_now = value

    def config(self, **settings):
        if "reconnects" in settings and "KR" not in self.settings.values():
            raise ValueError
        self.settings.update(settings)

    def connect(self, ssid, password):
        assert self.active_now
        self.attempts.append((ssid, password))
        outcome = self.plan.pop(0) if self.plan else 199
        if outcome == "broken":
            raise OSError(1)
        if isinstance(outcome, int) and outcome < 200:
            self.looks = outcome
            self.state = self.STAT_GOT_IP
        else:
            self.state = self.STAT_CONNECTING if outcome is None else outcome

    def disconnect(self):
        self.state = self.STAT_IDLE

    def isconnected(self):
        if self.state == self.STAT_GOT_IP:
            self.looks -= 1
            if self.looks < 0:
                self.state = self.STAT_IDLE
        return self.state == self.STAT_GOT_IP

    def status(self):
        return self.state

    def ifconfig(self):
        return ("192.0.2.7", "255.255.255.0", "192.0.2.1", "192.0.2.1")


def play(plan, settings=SETTINGS):
    """Run until the plan is through and the last attempt has come to something."""
    network = Network(plan)
    sys.modules["network"] = network
    said = []
    pauses = []
    kept = console.say, wifi.POLL_MS, wifi.JOIN_TIMEOUT_MS, asyncio.sleep_ms
    console.say = lambda event, **fields: said.append(fields)
    wifi.POLL_MS = 0
    wifi.JOIN_TIMEOUT_MS = 30

    async def sleep_ms(ms):
        if ms:
            pauses.append(ms)
        await kept[3](0)

    async def main():
        station = wifi.Wifi(settings)
        assert not station.up
        task = asyncio.create_task(station.run())
        wanted = len(plan)
        while network.plan or len(said) < wanted:
            await kept[3](1)
        task.cancel()

    asyncio.sleep_ms = sleep_ms
    try:
        asyncio.run(asyncio.wait_for(main(), SECONDS))
    finally:
        console.say, wifi.POLL_MS, wifi.JOIN_TIMEOUT_MS, asyncio.sleep_ms = kept
        del sys.modules["network"]
    return network, said, pauses


def test_joins_with_what_the_settings_say():
    network, said, _ = play([150])
    assert network.attempts[0] == ("hall 3", "correct horse")
    assert network.settings == {"country": "KR", "hostname": "pump-7", "reconnects": 0}
    assert said[0] == {"state": "up", "address": "192.0.2.7"}


def test_a_port_without_such_settings_is_left_as_it_is():
    network, _, _ = play([150], Settings("open", None, None, None))
    assert network.attempts[0] == ("open", None)
    assert network.settings == {}


def test_says_why_it_could_not_join_and_tries_again():
    network, said, _ = play([Network.STAT_WRONG_PASSWORD, 201, None, "broken", 100])
    reasons = [fields.get("reason") for fields in said[:5]]
    assert reasons[:3] == ["wifi.password", "wifi.ssid", "wifi.timeout"]
    assert reasons[3].startswith("wifi.driver")
    assert said[4]["state"] == "up"
    assert len(network.attempts) >= 5
    assert not any("correct" in str(fields) for fields in said)


def test_comes_back_when_it_is_lost():
    _, said, pauses = play([3, 3, 100])
    states = [fields["state"] for fields in said]
    assert states[:4] == ["up", "down", "up", "down"]
    assert said[1]["reason"] == "wifi.lost"
    # After a good connection the pause is short again.
    assert all(pause <= wifi.BACKOFF_MIN_MS for pause in pauses[:2])


def test_pauses_grow_to_a_bound_and_not_in_step():
    _, _, pauses = play([201] * 12)
    most = wifi.BACKOFF_MIN_MS
    for pause in pauses[:11]:
        assert most // 2 <= pause <= most
        most = min(2 * most, wifi.BACKOFF_MAX_MS)
    assert most == wifi.BACKOFF_MAX_MS
