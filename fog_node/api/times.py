"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS = -62_135_596_800_000  # the year 1
_BEYOND_MS = 253_402_300_800_000  # the year 10000


def iso(time_ms: float) -> str | None:
    """ISO 8601 of a time in ms since 1970; None before the year 1 and after 9999."""
    if not _FIRST_MS <= time_ms < _BEYOND_MS:
        return None
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
