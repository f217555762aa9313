"""Settings of a board for tests, as a technician's settings file has them."""


def values(**changes):
    """For a simulated test bed behind a broker that is not there."""
    return {
        "chain_id": "11" * 32,
        "device_type": "water-circulation",
        "enterprise_number": 32473,
        "gateways": [{"name": "seoul", "key": "22" * 64}],
        "mqtt": {
            "host": "127.0.0.1",
            "port": 1,
            "tls": False,
            "ca": None,
            "server_name": None,
            "keepalive_s": 30,
        },
        "release_keys": [],
        "driver": {"name": "testbed", "seed": 1, "script": [{"rows": 9, "fault": None}]},
        "pack_rows": 3,
        "rate_hz": 0,
        "outbox_bytes": 65536,
        "gateway_timeout_s": 10,
        **changes,
    }
