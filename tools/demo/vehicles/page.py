"""The report for headquarters: one HTML page that needs nothing else, and says where it is from."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import charts
from .features import SIGNS
from .finder import FALSE_ALARMS
from .findings import Failing, Findings, change, title
from .lots import CONFIDENCE, LEVEL, Lot
from .orders import SETTINGS
from .parts import BY_KEY, COMPONENTS

STYLE_FILE = Path(__file__).with_name("page.css")
_ID_CHARS = 16


def render(findings: Findings, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Make the page.

    Args:
        findings: of the cloud.
        facts: the run's summary: what was sealed, refused, sent and answered.
        pictures: PNG files of the cameras, by their titles.
    """
    cars = len({one.car for one in findings.failing})
    sections = (
        ("do", "What to do now", _to_do(findings, facts)),
        ("failing", "What is failing", _what(findings)),
        ("where", "Where", _where(findings)),
        ("order", "What to order", _order(findings, facts)),
        ("change", "What to change", _change(findings, facts)),
        ("trust", "What the records are worth", _trust(facts)),
        ("roads", "On the roads", _roads(facts, pictures)),
        ("sure", "How sure this is", _sure(findings, facts)),
    )
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{text}</section>'
        for key, name, text in sections
    )
    pieces = sum(line.pieces for line in findings.order)
    refused = sum(one["refused"] for one in facts["falsified"])
    tiles = "".join(
        (
            _tile(f"{cars} of {len(findings.cars)}", "cars have a failing part"),
            _tile(_list(lot.name for lot in findings.bad_lots) or "none", "lot to stop"),
            _tile(str(pieces), "pieces to order"),
            _tile(f"{refused} of {len(facts['falsified'])}", "falsified records refused"),
            _tile(
                str(len(findings.odometers)),
                f"odometer{'s' if len(findings.odometers) != 1 else ''} turned back",
            ),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The fleet after {findings.weeks} weeks</title>"
        f"<style>{STYLE_FILE.read_text('utf-8')}</style></head><body><main>"
        f"<header><p class=from>Report for headquarters, Seoul</p>"
        f"<h1>The fleet after {findings.weeks} weeks</h1>"
        f"<p class=lead>{_lead(findings)}</p><div class=tiles>{tiles}</div><nav>{links}</nav>"
        f"</header>{body}<footer>{_footer(facts)}</footer></main></body></html>"
    )


def _lead(findings: Findings) -> str:
    bad = findings.bad_lots
    if bad:
        lots = _list(
            f"{lot.name} ({title(lot.component)}, {lot.plant.capitalize()})" for lot in bad
        )
        said = f"Lot{'s' if len(bad) > 1 else ''} {lots} must not be built in any more."
    else:
        said = "No lot has been shown to be worse than the others."
    kinds = len({one.component for one in findings.failing})
    rest = len([one for one in findings.failing if one.lot not in {lot.name for lot in bad}])
    if not findings.failing:
        return escape(f"{said} No part fails.")
    return escape(
        f"{said} {kinds} kind{'s' if kinds > 1 else ''} of part fail; {rest} failing "
        f"part{'s are' if rest != 1 else ' is'} of other lots, as happens now and then."
    )


def _to_do(findings: Findings, facts: Mapping[str, Any]) -> str:
    steps = []
    for lot in findings.bad_lots:
        notice = change(lot, findings)
        text = (
            f"<b>{_plant(lot.plant)}: stop using lot {escape(lot.name)}</b> "
            f"({escape(title(lot.component))}). Repair {_names(notice['repair'])}."
        )
        if notice["call_back"]:
            text += f" Call back {_names(notice['call_back'])}: same lot, not failing yet."
        steps.append(text)
    in_bad = {lot.name for lot in findings.bad_lots}
    single = [one for one in findings.failing if one.lot not in in_bad]
    if single:
        said = "; ".join(f"{_names([one.car])} ({escape(title(one.component))})" for one in single)
        steps.append(f"<b>Repair</b> {said}.")
    pieces = {line.component: line.pieces for line in findings.order if line.pieces}
    if pieces:
        said = ", ".join(f"{count} &times; {escape(title(key))}" for key, count in pieces.items())
        steps.append(f"<b>Parts</b>: {said}. {_answered(facts)}")
    steps += [
        f"<b>Ask the owner of {_names([fall.car])}</b>: the odometer went back by at least "
        f"{fall.kilometres:,.0f} km in week {fall.week}, under the car's own valid signature."
        for fall in findings.odometers
    ]
    copied = facts["quarantine"].get("car")
    if copied:
        steps.append(
            f"<b>Give {_names([copied])} a new key.</b> A copy of its key was used; it was in "
            "quarantine, and is active again only because the copy was found."
        )
    return f"<ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"


def _answered(facts: Mapping[str, Any]) -> str:
    answer = facts["letters"].get("order", {}).get("answer")
    return f"Ordered; the supplier has {escape(answer)} it." if answer else "Not ordered yet."


def _what(findings: Findings) -> str:
    if not findings.failing:
        return "<p>Nothing.</p>"
    panels = "".join(
        f"<figure><figcaption><b>{escape(component.title.capitalize())}</b>: "
        f"{escape(component.failure)}<br><span class=note>"
        f"{escape(SIGNS[component.sign].title)}, {escape(SIGNS[component.sign].unit)}</span>"
        "</figcaption>"
        f"{charts.course(findings, component)}</figure>"
        for component in COMPONENTS
        if any(one.component == component.key for one in findings.failing)
    )
    rows = [
        (
            escape(one.car), escape(title(one.component)), escape(one.lot),
            f"week {one.since}", _earlier(one),
            _value(one.observed, one), _value(one.expected, one), f"{one.score:.1f}",
        )
        for one in findings.failing
    ]  # fmt: skip
    head = ("car", "part", "lot", "found", "by limits", "measured", "expected", "score")
    fleet = "".join(
        f"<figure><figcaption><b>{_plant(plant)}</b></figcaption>"
        f"{charts.fleet(findings, plant)}</figure>"
        for plant in findings.plants
    )
    codes = ", ".join(f"{component.code} {escape(component.title)}" for component in COMPONENTS)
    return (
        f"<div class='panels wide'>{panels}</div>{_table(head, rows, numbers=(5, 6, 7))}"
        f"<p class=note>Measured and expected: means of week {findings.weeks}. Score: how far off, "
        f"in what sound cars are off; above {findings.judged.threshold:.1f} is a finding.</p>"
        f"<h3>Every car, every week</h3><div class=panels>{fleet}</div>"
        f"<p class=note>The stronger the colour, the farther off. {codes}.</p>"
    )


def _earlier(one: Failing) -> str:
    if one.limit_week is None:
        return "not yet"
    gained = one.limit_week - one.since
    return f"week {one.limit_week}" + (f" (+{gained})" if gained > 0 else "")


def _where(findings: Findings) -> str:
    shown = [lot for lot in findings.lots if lot.share.failing]
    rows = [_lot_row(lot) for lot in shown]
    head = ("lot", "plant", "part", "failing", "elsewhere", "p", "")
    needed = findings.lots[0].needed if findings.lots else LEVEL
    return (
        f"<figure>{charts.shares(findings.plants)}<figcaption class=note>Share of each plant's "
        f"cars whose part fails; bars: {CONFIDENCE:.0%} interval.</figcaption></figure>"
        f"{_table(head, rows, numbers=(3, 4, 5))}"
        f"<p class=note>Lots with a failing part. A lot is bad where chance gives so many with "
        f"probability {needed:.4f} or less: {LEVEL:.0%} for all lots together. Lots with too few "
        "cars or failures to show anything are not judged.</p>"
    )


def _lot_row(lot: Lot) -> tuple[str, ...]:
    verdict = "not judged: too few"
    if lot.tested:
        verdict = '<b class="bad">bad</b>' if lot.is_bad else "as others"
    return (
        escape(lot.name), _plant(lot.plant), escape(title(lot.component)),
        f"{lot.share.failing} of {lot.share.cars}",
        f"{lot.elsewhere.failing} of {lot.elsewhere.cars}",
        f"{lot.p_value:.5f}", verdict,
    )  # fmt: skip


def _order(findings: Findings, facts: Mapping[str, Any]) -> str:
    rows = [
        (
            escape(title(line.component)), str(line.repair), str(line.recall), str(line.reserve),
            f"<b>{line.pieces}</b>", f"{line.expected:.1f}",
        )
        for line in findings.order
    ]  # fmt: skip
    head = ("part", "for failing cars", "for call-backs", "reserve", "pieces", "cars expected")
    key = (
        "<p class=key><i class=repair></i>for failing cars <i class=recall></i>for cars that are "
        "called back <i class=reserve></i>reserve</p>"
    )
    letter = facts["letters"].get("order", {})
    sealed = ""
    if letter:
        sealed = (
            f"<p>Sent as request {_id(letter['request'])}; the supplier answered "
            f"<b>{escape(letter['answer'])}</b> in {_id(letter['response'])}.</p>"
        )
    return (
        f"<figure>{charts.order(findings.order)}</figure>{key}"
        f"{_table(head, rows, numbers=range(1, 6))}"
        f"<p class=note>Reserve: enough for the cars that will fail in the "
        f"{SETTINGS.lead_time + 1} weeks until the next order arrives, with a probability of "
        f"{SETTINGS.service_level:.0%}. Cars expected: the mean of the same. Nothing was in stock. "
        f"Some parts come in sets of {max(part.pieces for part in COMPONENTS)}.</p>{sealed}"
    )


def _change(findings: Findings, facts: Mapping[str, Any]) -> str:
    if not findings.bad_lots:
        return (
            "<p>Nothing: no lot has been shown to be bad. More cars or more weeks may show one.</p>"
        )
    answers = {letter["lot"]: letter for letter in facts["letters"].get("changes", ())}
    parts = []
    for lot in findings.bad_lots:
        letter = answers.get(lot.name)
        text = (
            f"<p><b>{_plant(lot.plant)}, lot {escape(lot.name)}</b>: in {lot.share.failing} of the "
            f"{lot.share.cars} cars with it the {escape(title(lot.component))} fails "
            f"({lot.share.low:.0%} to {lot.share.high:.0%}), elsewhere {lot.elsewhere.failing} of "
            f"{lot.elsewhere.cars} ({lot.elsewhere.low:.0%} to {lot.elsewhere.high:.0%}). Take the "
            "lot out of production, and have the supplier look at it.</p>"
        )
        if letter:
            text += (
                f"<p>Sent to the plant as request {_id(letter['request'])}; answer "
                f"<b>{escape(letter['answer'])}</b> in {_id(letter['response'])}.</p>"
            )
        parts.append(text)
    return "".join(parts)


def _trust(facts: Mapping[str, Any]) -> str:
    rows = [
        (
            escape(one["what"]), escape(one["car"]), f"<code>{escape(one['cause'])}</code>",
            "refused" if one["refused"] else '<b class="bad">NOT refused</b>',
        )
        for one in facts["falsified"]
    ]  # fmt: skip
    quarantine = facts["quarantine"]
    told = ""
    if quarantine:
        told = (
            f"<p><b>{escape(quarantine['car'])}</b> was quarantined when a copy of its key signed. "
            f"At its next contact its gateway's receipt told it so; it sent nothing, and kept "
            f"{quarantine['records_kept']} records until it was reinstated. None was lost.</p>"
        )
    sets = [
        (escape(name), str(one["count"]), f"<code>{escape(one['root'])}</code>")
        for name, one in facts["data_sets"].items()
    ]
    proof = facts["proof"]
    proven = "holds" if proof["verified"] else "does NOT hold"
    flipped = "refused" if proof["tampered_refused"] else "NOT refused"
    return (
        f"<p>{facts['packs_committed']} records were signed by {facts['cars']} cars and boards at "
        f"the roads, and are final in {facts['blocks']} blocks by at least {facts['quorum']} of "
        f"{facts['validators']} validators; {facts['packs_lost']} lost, "
        f"{facts['packs_duplicated']} doubled.</p><h3>Falsified</h3>"
        f"{_table(('record', 'in the name of', 'cause', ''), rows)}{told}"
        f"<h3>What this report is made of</h3>"
        f"{_table(('readings of', 'records', 'Merkle root'), sets, numbers=(1,))}"
        f"<p>The findings, {facts['letters']['findings']['bytes']} bytes of JSON with SHA-256 "
        f"<code>{escape(facts['letters']['findings']['sha256'])}</code>, are sealed as request "
        f"{_id(facts['letters']['findings']['request'])}. A proof of a record of "
        f"<b>{escape(proof['car'])}</b> ({_id(proof['transaction'])}) {proven}; the same with one "
        f"bit flipped is {flipped}. To check it yourself, anywhere:</p>"
        "<pre>fogline proof verify proof/reading.proof --founding proof/founding.cbor</pre>"
    )


def _roads(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    roads = facts["infrastructure"]
    shown = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,'
        f'{base64.b64encode(data).decode()}"><figcaption class=note>{escape(name)}</figcaption>'
        "</figure>"
        for name, data in pictures.items()
    )
    rows = [
        (
            escape(one["camera"]), f"week {one['week']}", str(one["sealed"]), str(one["vehicles"]),
            f"{one['bytes']:,}", f"<code>{escape(one['sha256'][:_ID_CHARS])}…</code>",
        )
        for one in roads["pictures"]
    ]  # fmt: skip
    head = ("camera", "", "counted by its board", "in the picture", "bytes", "SHA-256")
    return (
        f"<p>Boards and cameras at the roads reach the gateways of {_list(roads['gateways'])} "
        f"alone, which admitted all {roads['records']} of their records. Of the blocks with these, "
        f"{roads['certificates_with_a_government_vote']} of {roads['records']} certificates bear a "
        "vote of a government's validator; all its validators have checked each. Pictures lie "
        "beside the chain, their hashes on it.</p>"
        f"<div class=panels>{shown}</div>{_table(head, rows, numbers=(2, 3, 4))}"
    )


def _sure(findings: Findings, facts: Mapping[str, Any]) -> str:
    rows = [
        (
            escape(name), str(one["found"]), f"{one['right']} of {one['true']}",
            f"{one['precision']:.0%}", f"{one['recall']:.0%}",
        )
        for name, one in facts["judged"]["scores"].items()
    ]  # fmt: skip
    head = ("", "found", "right", "precision", "recall")
    return (
        "<p>The faults of this demonstration were put into known cars; the findings were made "
        "without knowing them. Compared afterwards:</p>"
        f"{_table(head, rows, numbers=range(1, 5))}"
        f"<p>{escape(facts['judged']['verdict'])}</p><p class=note>Readings: "
        f"{escape(facts['source'])}. "
        f"The network has learned from {findings.judged.windows} windows of week 1, in which all "
        "cars were taken to be sound; it expects each sign from what the car was doing. The "
        f"threshold lets {FALSE_ALARMS:g} sound cars in all be taken for failing ones, were their "
        "scores distributed as Student's t. Limits: "
        f"{escape(_limits())}. Real faults are less alike than these.</p>"
    )


def _limits() -> str:
    return ", ".join(
        f"{sign.title} {'above' if sign.worse > 0 else 'below'} {sign.limit:g} {sign.unit}"
        for sign in SIGNS.values()
    )


def _footer(facts: Mapping[str, Any]) -> str:
    return (
        f"Seed {facts['seed']}. Made by <code>fogline demo --scenario vehicles</code> from sealed "
        f"readings up to block {facts['data_height']}."
    )


def _tile(value: str, text: str) -> str:
    return f"<div class=tile><b>{escape(value)}</b><span>{escape(text)}</span></div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table; cells are HTML. Columns in `numbers` stand to the right."""
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if at in right else ''}>{cell}</{tag}>"
            for at, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f"<div class=scroll><table><thead><tr>{cells('th', head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _value(value: float, one: Failing) -> str:
    sign = SIGNS[BY_KEY[one.component].sign]
    return f"{value + 0.0:.1f} {escape(sign.unit)}".replace("-0.0 ", "0.0 ")


def _plant(name: str) -> str:
    return escape(name.capitalize())


def _names(cars: Sequence[str]) -> str:
    return _list(f"<span class=car>{escape(car)}</span>" for car in cars) or "no car"


def _list(items: Iterable[str]) -> str:
    return ", ".join(items)


def _id(identity: str) -> str:
    return f'<code title="{escape(identity)}">{escape(identity[:_ID_CHARS])}…</code>'
