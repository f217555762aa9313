"""Runs the board's MQTT client on its own (MicroPython), for test_mqtt.py.

Argument: a JSON object: host, port, keepalive_s, filters, messages (how many to publish),
gates (message numbers at which to wait, slowly publishing, for a lost connection), ca and
server_name for TLS. Prints one JSON object per line.
"""

import asyncio
import json
import sys

from fogline import mqtt

SLOW_MS = 50


def say(event, **fields):
    fields["event"] = event
    print(json.dumps(fields))


class Handler:
    lost = 0

    def message(self, topic, payload):
        say("message", topic=topic, payload=payload.decode())

    def connected(self):
        say("connected")

    def disconnected(self, reason):
        self.lost += 1
        say("disconnected", reason=reason)


def trust(path):
    with open(path, "rb") as file:  # noqa: PTH123 - MicroPython has no pathlib
        return mqtt.tls_context(file.read())


async def main(options):
    handler = Handler()
    client = mqtt.Client(
        host=options["host"],
        port=options["port"],
        client_id="probe",
        keepalive_s=options["keepalive_s"],
        will=lambda: ("probe/will", b"gone"),
        filters=options["filters"],
        handler=handler,
        context=trust(options["ca"]) if "ca" in options else None,
        server_name=options.get("server_name"),
        user=options.get("user"),
        password=options.get("password"),
    )
    running = asyncio.create_task(client.run())
    gates = options.get("gates", [])
    for number in range(options["messages"]):
        if number in gates:
            say("gate", number=number)
        passed = sum(1 for gate in gates if gate <= number)
        await client.publish("probe/out", b"%d" % number)
        await asyncio.sleep_ms(SLOW_MS if handler.lost < passed else 0)
    if options["messages"]:
        await client.flush()
        say("flushed")
        await client.close()
    await running
    say("closed")


asyncio.run(main(json.loads(sys.argv[1])))
