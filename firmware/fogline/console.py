"""What the board tells whoever listens on its console: one JSON object a line.

Every object has "event"; the table of events is in firmware/README.md. Bytes are hex, and
nothing secret is ever printed.
"""

import json

# Where a line goes: standard output, or frames on the serial line that it shares with the link.
write = print


def say(event, **fields):
    """Print one event."""
    fields["event"] = event
    write(json.dumps(fields))
