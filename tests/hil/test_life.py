"""A board's whole life in the heap of a small one: it samples, signs and judges all at once."""

import pytest
from support import summary

from tools.hil import life


@pytest.mark.parametrize("sensors", [life.BME280, life.TESTBED], ids=lambda one: one.name)
@pytest.mark.parametrize("target", life.TARGETS)
def test_a_life_fits_two_thirds_of_a_small_boards_heap(target, sensors, request):
    seen = life.run(target, sensors)
    assert seen.heap_bytes <= life.GIVEN_BYTES < life.HEAP_BYTES
    assert seen.packs >= life.PACKS
    assert seen.verdicts > 0
    # Bytes, not time: the same every run, but for some hundred.
    assert seen.held_bytes <= life.LIMIT_BYTES
    assert seen.fits
    summary.say(request.config, f"a board's life on {target} with {sensors.name}", [seen.line()])
