"""What the board tells whoever listens on its console: one JSON object a line.

Every object has "event"; the table of events is in firmware/README.md. Bytes are hex, and
nothing secret is ever printed.
"""

import json


def say(event, **fields):
    """Print one event."""
    fields["event"] = event
    print(json.dumps(fields))
