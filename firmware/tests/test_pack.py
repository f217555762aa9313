"""Packs: the hub's bytes, and that no row or verdict can break a bound."""

from fogline import cbor, pack
from fogline.pack import PackBuilder
from support import Random, plain, raises, vectors

VECTORS = vectors("board_packs")
MESSAGES = vectors("messages")
KID = bytes.fromhex(VECTORS["kid"])
NUMBER = VECTORS["enterprise_number"]
START_MS = 1_767_225_600_000
MODEL = bytes(range(32))


def builder(channels=1, **options):
    named = [(f"channel{index}", "V") for index in range(channels)]
    return PackBuilder(KID, named, NUMBER, **options)


def test_the_hubs_bytes():
    for vector in VECTORS["packs"]:
        labels = [label for _, label, _ in vector["faults"]]
        made = PackBuilder(KID, vector["channels"], NUMBER, sensors=labels)
        verdicts = {
            row: (score, anomaly, output) for row, score, anomaly, output in vector["verdicts"]
        }
        for index, (time_ms, values) in enumerate(vector["rows"]):
            assert made.fits(time_ms)
            for row, label, code in vector["faults"]:
                if row == index:
                    made.add_fault(time_ms, label, code)
            gave = any(value is not None for value in values)
            assert made.add_row(time_ms, plain(values)) == gave
            if index in verdicts:
                score, anomaly, output = verdicts[index]
                model = bytes.fromhex(vector["model"])
                made.add_verdict(model, score, anomaly, bytes.fromhex(output))
        said = vector["clock"] and tuple(plain(vector["clock"]))
        assert made.take(said).hex() == vector["payload"], vector["title"]
        assert made.empty


def test_the_hubs_alert():
    vector = VECTORS["alert"]
    payload = pack.encode_alert(
        vector["time"],
        bytes.fromhex(vector["model"]),
        vector["score"],
        vector["threshold"],
        vector["pack"],
    )
    assert payload.hex() == vector["payload"]
    raises("pack.alert", pack.encode_alert, 1, bytes(31), 0, 0, 1)


def test_a_pack_after_a_pack_begins_anew():
    made = builder()
    made.add_row(START_MS, [1])
    made.add_verdict(MODEL, 1, False, bytes(8))
    first = made.take()
    made.add_row(START_MS, [1])
    made.add_verdict(MODEL, 1, False, bytes(8))
    assert made.take() == first


def test_failed_channels_are_left_out():
    made = builder(3)
    assert not made.add_row(START_MS, [None, float("nan"), float("inf")])
    assert made.rows == 0
    raises("pack.empty", made.take)
    assert made.add_row(START_MS, [None, 2.0, float("-inf")])
    records = cbor.decode(made.take(), pack.MAX_PAYLOAD_BYTES)
    assert len(records) == 1
    assert records[0][0] == "channel1"
    assert records[0][-3] == START_MS // 1000


def test_a_pack_names_a_failed_sensor_once():
    made = builder(2, sensors=("pump", "air"))
    for row in range(3):
        made.add_fault(START_MS + row, "pump", "absent")
        made.add_row(START_MS + row, [1, None])
    made.add_fault(START_MS + 3, "air", "crc")
    records = cbor.decode(made.take(), pack.MAX_PAYLOAD_BYTES)
    assert [record[0] for record in records[3:]] == ["fault/pump", "fault/air"]
    assert made.empty
    raises("pack.empty", made.take)


def test_a_fault_is_one_of_the_boards_own_sensors():
    made = builder(sensors=("pump",))
    raises("pack.fault", made.add_fault, START_MS, "air", "absent")
    raises("pack.fault", made.add_fault, START_MS, "pump", "")
    raises("pack.fault", made.add_fault, START_MS, "pump", "a" * 17)
    raises("pack.time", made.add_fault, -1, "pump", "absent")
    raises("pack.channels", lambda: builder(sensors=("a",) * 33))
    raises("pack.channels", lambda: builder(sensors=("a" * 27,)))


def test_faults_find_room_in_the_fullest_pack():
    labels = [str(index) * 26 for index in range(10)]
    made = builder(32, sensors=labels)
    time_ms = START_MS
    while made.fits(time_ms + 1001) and not made.full:
        time_ms += 1001
        for label in labels:
            made.add_fault(time_ms, label, "b" * 16)
        made.add_row(time_ms, [0.1] * 32)
        made.add_verdict(MODEL, 1 << 30, False, bytes(8))
    assert 10 < made.rows < 120
    assert pack.MAX_PAYLOAD_BYTES - 2000 < len(made.take()) <= pack.MAX_PAYLOAD_BYTES


def test_times_must_rise():
    made = builder()
    made.add_row(START_MS, [1])
    for time_ms in (START_MS, START_MS - 1, START_MS + pack.MAX_SPAN_MS + 1):
        assert not made.fits(time_ms)
        raises("pack.time", made.add_row, time_ms, [1])
    assert made.fits(START_MS + 1)
    made.take()
    raises("pack.time", made.add_row, -1, [1])


def test_a_pack_is_full_with_its_rows():
    made = builder(max_rows=3)
    for index in range(3):
        assert not made.full
        made.add_row(START_MS + index, [index])
    assert made.full
    assert not made.fits(START_MS + 3)
    raises("pack.time", made.add_row, START_MS + 3, [1])


def test_a_row_has_a_value_for_each_channel():
    made = builder(2)
    raises("pack.row", made.add_row, START_MS, [1])
    raises("pack.row", made.add_row, START_MS, [1, 2, 3])


def test_verdicts_follow_rows_and_share_a_model():
    made = builder()
    raises("pack.verdict", made.add_verdict, MODEL, 1, False, bytes(8))
    made.add_row(START_MS, [1])
    for score in (-1, pack.MAX_SCORE + 1):
        raises("pack.verdict", made.add_verdict, MODEL, score, False, bytes(8))
    made.add_verdict(MODEL, pack.MAX_SCORE, True, bytes(32))
    raises("pack.verdict", made.add_verdict, MODEL, 1, False, bytes(8))
    made.add_row(START_MS + 1, [1])
    raises("pack.model", made.add_verdict, bytes(32), 1, False, bytes(8))


def test_bounds_of_channels_and_rows():
    raises("pack.channels", builder, 0)
    raises("pack.channels", builder, pack.MAX_CHANNELS + 1)
    for rows in (0, pack.MAX_ROWS + 1):
        made = lambda rows=rows: builder(max_rows=rows)  # noqa: E731 - the call that must fail
        raises("pack.rows", made)


def test_no_pack_is_larger_than_a_payload():
    random = Random(8428)
    for channels in (1, 7, pack.MAX_CHANNELS):
        named = [("n" * 30 + f"{index:02}", "u" * 16) for index in range(channels)]
        made = PackBuilder(KID, named, (1 << 32) - 1)
        time_ms = START_MS + 1
        while made.fits(time_ms):
            made.add_row(time_ms, [(1 + random.below(1 << 20)) / 3 for _ in range(channels)])
            made.add_verdict(MODEL, pack.MAX_SCORE, True, MODEL)
            time_ms += 1 + random.below(100)
        rows = made.rows
        payload = made.take()
        assert len(payload) <= pack.MAX_PAYLOAD_BYTES
        assert rows == pack.MAX_ROWS or len(payload) > pack.MAX_PAYLOAD_BYTES // 2


def test_no_memory_keeps_the_pack():
    made = builder(2)
    made.add_row(START_MS, [1, 2])

    def no_memory(value):
        raise MemoryError

    encode_float, pack.cbor.encode_float = pack.cbor.encode_float, no_memory
    try:
        raises("pack.memory", made.add_row, START_MS + 1, [3, 4])
    finally:
        pack.cbor.encode_float = encode_float
    assert made.rows == 1
    made.add_row(START_MS + 1, [3, 4])
    assert len(cbor.decode(made.take(), 999)) == 4
