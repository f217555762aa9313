"""Labels are read back as a scanner reads them, and what is scanned can be enrolled."""

import re

import pytest
import zxingcpp
from PIL import Image

from fog_node.protocol.keys import SigningKey
from tools.devices import enrolment, labels
from tools.errors import UsageError

A4 = labels.SHEETS["3x8"]


def record(secret, **changes):
    key = SigningKey.from_secret(secret).public
    return {
        "public_key": key.xy.hex(),
        "enterprise_number": 32473,
        "board": "pico2-w",
        "device_type": "water-circulation",
        "unique_id": "e6614c311b7f2a35",
        "channels": [["flow", "L/min", 0.0, 400.0]],
        **changes,
    }


def drawn(count, name, tmp_path, sheet=A4, skip=0):
    made = [labels.label_of(record(secret + 1), "plant") for secret in range(count)]
    path = tmp_path / name
    path.write_bytes(labels.draw(made, sheet, skip, path))
    return path, [label.code for label in made]


@pytest.mark.parametrize("sheet", labels.SHEETS)
def test_every_code_of_a_row_can_be_scanned(tmp_path, sheet) -> None:
    layout = labels.SHEETS[sheet]
    # The last places of the sheet: a full row, with both edges of the paper.
    count = layout.columns
    skip = layout.columns * (layout.rows - 1)
    path, codes = drawn(count, "sheet.png", tmp_path, layout, skip)
    with Image.open(path) as page:
        assert page.size == (2480, 3508)
        found = zxingcpp.read_barcodes(page.convert("L"))
    assert sorted(one.text for one in found) == sorted(codes)


def test_what_was_scanned_can_be_enrolled() -> None:
    key = SigningKey.from_secret(7).public
    text = labels.code_text(32473, key)
    assert text.startswith(f"urn:dev:org:32473-{key.kid.hex()}?=key=")
    for typed in (text, text.upper() + "\n", key.xy.hex()):
        body = enrolment.enrolment(typed.strip(), "plant", "pump", "pico", ["flow,L/min,0,200"])
        assert body.key.xy == key.xy
    other = labels.code_text(32473, SigningKey.from_secret(8).public)
    mixed = text[: text.index("?")] + other[other.index("?") :]
    with pytest.raises(UsageError, match="not that of its key id; scan it again"):
        enrolment.enrolment(mixed, "plant", "pump", "pico", ["flow,L/min,0,200"])


def test_sheets_go_on_where_labels_are_left(tmp_path) -> None:
    svg, _ = drawn(2, "sheet.svg", tmp_path, skip=4)
    text = svg.read_text()
    # The fifth and sixth place: second row, second and third column.
    assert len(re.findall("<text", text)) == 2 * 5
    at = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d', text)]
    assert min(at) > 70
    ys = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)"', text)]
    assert 37 < min(ys) < max(ys) < 75
    with pytest.raises(UsageError, match="--skip 24: the sheet has 24 labels"):
        drawn(1, "a.svg", tmp_path, skip=24)


def test_a_pdf_has_as_many_pages_as_it_takes(tmp_path) -> None:
    path, _ = drawn(3, "sheet.pdf", tmp_path, skip=22)
    data = path.read_bytes()
    assert data.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", data)) == 2
    for name in ("sheet.svg", "sheet.png"):
        with pytest.raises(UsageError, match=r"takes one page of 24 labels; a \.pdf takes more"):
            drawn(3, name, tmp_path, skip=22)
    with pytest.raises(UsageError, match=r"end its name in \.pdf, \.svg or \.png"):
        drawn(1, "sheet.doc", tmp_path)


def test_a_board_without_a_key_has_no_label() -> None:
    for changes in ({"public_key": "00"}, {"public_key": None}, {"enterprise_number": None}):
        with pytest.raises(UsageError, match="provision it again"):
            labels.label_of(record(1, **changes), None)


def test_words_stay_inside_their_label(tmp_path) -> None:
    long = record(1, device_type="x" * 64, board="y" * 32)
    page = labels.draw([labels.label_of(long, "o" * 32)], A4, 0, tmp_path / "a.svg").decode()
    for x, size, text in re.findall(
        r'<text x="([\d.]+)" y="[\d.]+" font-size="([\d.]+)".*?>(.*?)<', page
    ):
        assert float(x) + 0.6 * float(size) * len(text) <= 70.5
