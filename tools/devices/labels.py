"""Printable labels for boards: what it is in words, and its key in a QR code.

The code holds the board's device URN (RFC 9039) with its public key as a query component (RFC
8141, 2.3.2): `urn:dev:org:NUMBER-KID?=key=HEX`, which `fogline device enroll --public-key` takes as
a hand scanner types it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.keys import PublicKey
from tools.errors import ToolError, UsageError

__all__ = ["SHEETS", "Label", "Sheet", "code_text", "draw", "key_of_code", "label_of"]

# A4 in mm.
PAGE_WIDTH, PAGE_HEIGHT = 210.0, 297.0
DOTS_PER_MM = 300 / 25.4
MAX_LABELS = 1000
_CODE = re.compile(r"urn:dev:org:(\d{1,10})-([0-9a-f]{16})\?=key=([0-9a-f]{128})")


@dataclass(frozen=True)
class Sheet:
    """A sheet of self-adhesive labels on A4; lengths in mm."""

    columns: int
    rows: int
    width: float
    height: float


# By columns and rows, as the common sheets have them, without gaps.
SHEETS = {
    "3x8": Sheet(3, 8, 70.0, 37.0),
    "3x7": Sheet(3, 7, 70.0, 42.3),
    "2x7": Sheet(2, 7, 105.0, 42.3),
}


@dataclass(frozen=True)
class Label:
    """One board. lines: below the title, beside the code."""

    title: str
    lines: tuple[str, ...]
    code: str


class Rect(NamedTuple):
    """A black rectangle; mm."""

    x: float
    y: float
    width: float
    height: float


class Words(NamedTuple):
    """Text; x and y of its base line's begin, size of the font, all mm."""

    x: float
    y: float
    size: float
    text: str
    is_bold: bool


def code_text(enterprise_number: int, key: PublicKey) -> str:
    """What the QR code of a board says."""
    return f"urn:dev:org:{enterprise_number}-{key.kid.hex()}?=key={key.xy.hex()}"


def key_of_code(text: str) -> str | None:
    """The public key (hex) in what a scanner read; None for other text.

    Raises:
        UsageError: key and key id do not belong together.
    """
    found = _CODE.fullmatch(text.strip().lower())
    if found is None:
        return None
    try:
        key = PublicKey(bytes.fromhex(found[3]))
    except ProtocolError as error:
        raise UsageError(
            f"--public-key: the label's key is none: {error}; scan it again"
        ) from error
    if key.kid.hex() != found[2]:
        raise UsageError("--public-key: the label's key is not that of its key id; scan it again")
    return key.xy.hex()


def label_of(record: Mapping[str, Any], owner: str | None) -> Label:
    """The label of a board that `device provision` reports.

    Raises:
        UsageError: the record lacks something.
    """
    try:
        key = PublicKey(bytes.fromhex(record["public_key"]))
        number = int(record["enterprise_number"])
        lines = [str(record["board"]), str(record["device_type"])]
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise UsageError(f"a board of the report has no {error}; provision it again") from error
    kid = key.kid.hex()
    title = f"{kid[:8]} {kid[8:]}"
    if owner:
        lines.append(owner)
    lines.append(f"chip {record['unique_id']}" if record.get("unique_id") else "")
    return Label(title, tuple(line for line in lines if line), code_text(number, key))


def draw(labels: Sequence[Label], sheet: Sheet, skip: int, out: Path) -> bytes:
    """Draw labels onto A4; the ending of `out` chooses PDF, SVG or PNG.

    Args:
        labels: of the boards.
        sheet: that they are printed on.
        skip: places at the sheet's begin that are used up.
        out: name of the file.

    Raises:
        UsageError: another ending, too many labels, or more than one page where the format has one.
    """
    kind = out.suffix.lower()
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{len(labels)} labels; print {MAX_LABELS} at a time")
    per_page = sheet.columns * sheet.rows
    if not 0 <= skip < per_page:
        raise UsageError(f"--skip {skip}: the sheet has {per_page} labels")
    if kind not in (".pdf", ".svg", ".png"):
        raise UsageError(f"{out}: end its name in .pdf, .svg or .png")
    if kind != ".pdf" and skip + len(labels) > per_page:
        raise UsageError(f"{out}: takes one page of {per_page} labels; a .pdf takes more")
    pages = _pages(labels, sheet, skip)
    if kind == ".pdf":
        return _pdf(pages)
    return _svg(pages[0]) if kind == ".svg" else _png(pages[0])


Page = list[Rect | Words]


def _pages(labels: Sequence[Label], sheet: Sheet, skip: int) -> list[Page]:
    per_page = sheet.columns * sheet.rows
    left = (PAGE_WIDTH - sheet.columns * sheet.width) / 2
    top = (PAGE_HEIGHT - sheet.rows * sheet.height) / 2
    pages: list[Page] = []
    for place, label in enumerate(labels, skip):
        if not pages or place % per_page == 0:
            pages.append([])
        row, column = divmod(place % per_page, sheet.columns)
        pages[-1] += _label(label, left + column * sheet.width, top + row * sheet.height, sheet)
    return pages or [[]]


def _label(label: Label, x: float, y: float, sheet: Sheet) -> Page:
    margin = 3.0
    side = sheet.height - 2 * margin
    shapes: Page = [*_code(label.code, x + margin, y + margin, side)]
    text_x = x + margin + side + 2.0
    room = sheet.width - side - 2 * margin - 2.0
    shapes.append(Words(text_x, y + margin + 4.0, _fit(label.title, 3.6, room), label.title, True))
    for index, line in enumerate(label.lines):
        at = y + margin + 10.0 + 4.6 * index
        shapes.append(Words(text_x, at, _fit(line, 3.0, room), line, False))
    return shapes


def _fit(text: str, size: float, room: float) -> float:
    """A size at which text of about 0.6 em a character has room."""
    return min(size, room / max(1, len(text)) / 0.6)


def _code(text: str, x: float, y: float, side: float) -> Page:
    try:
        import segno
    except ImportError as error:
        raise ToolError(
            "segno is not installed; pip install '.[boards]' in Fogline's folder"
        ) from error
    code = segno.make_qr(text, error="m")
    dots = [list(row) for row in code.matrix_iter(scale=1, border=2)]
    dot = side / len(dots)
    shapes: Page = []
    for row, line in enumerate(dots):
        start = None
        for column, value in enumerate([*line, 0]):
            if value and start is None:
                start = column
            elif not value and start is not None:
                shapes.append(Rect(x + start * dot, y + row * dot, (column - start) * dot, dot))
                start = None
    return shapes


def _svg(page: Page) -> bytes:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{PAGE_WIDTH:g}mm" '
        f'height="{PAGE_HEIGHT:g}mm" viewBox="0 0 {PAGE_WIDTH:g} {PAGE_HEIGHT:g}">'
    )
    parts = [
        head,
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    path = []
    for shape in page:
        if isinstance(shape, Rect):
            x, y, width, height = shape
            path.append(f"M{x:.3f} {y:.3f}h{width:.3f}v{height:.3f}h{-width:.3f}z")
        else:
            weight = "bold" if shape.is_bold else "normal"
            parts.append(
                f'<text x="{shape.x:.2f}" y="{shape.y:.2f}" font-size="{shape.size:.2f}" '
                f'font-family="monospace" font-weight="{weight}">{escape(shape.text)}</text>'
            )
    parts.append(f'<path shape-rendering="crispEdges" d="{"".join(path)}"/>')
    return "\n".join([*parts, "</svg>\n"]).encode()


def _pdf(pages: Sequence[Page]) -> bytes:
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise ToolError(
            "fpdf2 is not installed; pip install '.[boards]' in Fogline's folder"
        ) from error
    pdf = FPDF(unit="mm", format=(PAGE_WIDTH, PAGE_HEIGHT))
    pdf.set_auto_page_break(False)
    for page in pages:
        pdf.add_page()
        for shape in page:
            if isinstance(shape, Rect):
                pdf.rect(*shape, style="F")
            else:
                pdf.set_font("Courier", "B" if shape.is_bold else "", shape.size / 25.4 * 72)
                # The standard fonts have Latin-1 only.
                pdf.text(
                    shape.x, shape.y, shape.text.encode("latin-1", "replace").decode("latin-1")
                )
    return bytes(pdf.output())


def _png(page: Page) -> bytes:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ToolError(
            "Pillow is not installed; pip install '.[boards]' in Fogline's folder"
        ) from error
    size = (round(PAGE_WIDTH * DOTS_PER_MM), round(PAGE_HEIGHT * DOTS_PER_MM))
    image = Image.new("1", size, 1)
    pen = ImageDraw.Draw(image)
    for shape in page:
        if isinstance(shape, Rect):
            left, top = round(shape.x * DOTS_PER_MM), round(shape.y * DOTS_PER_MM)
            right = round((shape.x + shape.width) * DOTS_PER_MM) - 1
            bottom = round((shape.y + shape.height) * DOTS_PER_MM) - 1
            pen.rectangle((left, top, right, bottom), fill=0)
        else:
            font = ImageFont.load_default(shape.size * DOTS_PER_MM)
            at = (shape.x * DOTS_PER_MM, shape.y * DOTS_PER_MM)
            pen.text(at, shape.text, fill=0, font=font, anchor="ls")
    out = io.BytesIO()
    image.save(out, "PNG", dpi=(300, 300))
    return out.getvalue()
