"""What is refused is reported, but a flood of it neither fills the chain nor hides the rest."""

from __future__ import annotations

import hashlib

import pytest

from fog_node.gateway.admission import Message, Refusal
from fog_node.gateway.incidents import CAUSE_RATE, MAX_SOURCES, SOURCE_RATE, Incidents
from fog_node.protocol.transactions import CAUSES, Incident

NOW_MS = 1_700_000_000_123


class World:
    def __init__(self, clock):
        self.clock = clock
        self.submitted: list[Incident] = []
        self.incidents = Incidents(self.submitted.append, clock, lambda: NOW_MS)

    def refuse(self, cause="bad_signature", device=b"deviceid", claimed=None, detail="why"):
        refusal = Refusal(Message(b"refused bytes", claimed), cause, detail, device, 7)
        return self.incidents.report(refusal)


@pytest.fixture
def world(clock):
    return World(clock)


def test_an_incident_says_what_was_refused_and_why(world):
    assert world.refuse()
    assert world.submitted == [
        Incident(
            cause="bad_signature",
            device=b"deviceid",
            sequence=7,
            digest=hashlib.sha256(b"refused bytes").digest(),
            size=13,
            detail="why",
            time=NOW_MS,
        )
    ]


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_can_be_reported(world, cause):
    world.refuse(cause)
    (incident,) = world.submitted
    assert Incident.decode(incident.encode()).cause == cause


def test_one_source_is_reported_a_few_times_and_then_counted(world):
    burst = int(SOURCE_RATE.burst)
    results = [world.refuse() for _ in range(burst + 10)]
    assert results == [True] * burst + [False] * 10
    assert world.incidents.counts.reported["bad_signature"] == burst
    assert world.incidents.counts.suppressed["bad_signature"] == 10


def test_the_next_report_tells_how_many_were_not(world):
    for _ in range(int(SOURCE_RATE.burst) + 10):
        world.refuse()
    world.clock.now_s += 1 / SOURCE_RATE.per_s
    assert world.refuse()
    assert world.submitted[-1].detail == "after 10 more like it: why"


def test_one_source_does_not_hide_another(world):
    for _ in range(20):
        world.refuse(device=b"device-1")
    assert world.refuse(device=b"device-2")


def test_where_no_signer_is_claimed_the_topic_is_the_source(world):
    for _ in range(20):
        world.refuse("malformed", device=None, claimed=b"device-1")
    assert world.refuse("malformed", device=None, claimed=b"device-2")


def test_invented_signers_do_not_fill_the_chain(world):
    for i in range(1000):
        world.refuse("unknown_device", device=i.to_bytes(8, "big"))
    assert len(world.submitted) == int(CAUSE_RATE.burst)
    assert world.incidents.counts.suppressed["unknown_device"] == 1000 - int(CAUSE_RATE.burst)


def test_a_flood_of_one_cause_does_not_hide_another(world):
    for i in range(1000):
        world.refuse("unknown_device", device=i.to_bytes(8, "big"))
    assert world.refuse("tampered")


def test_memory_is_bounded_whatever_is_claimed(world):
    for i in range(MAX_SOURCES + 100):
        world.refuse("unknown_device", device=i.to_bytes(8, "big"))
    assert len(world.incidents._untold) <= MAX_SOURCES
    assert len(world.incidents._sources._buckets) <= MAX_SOURCES
