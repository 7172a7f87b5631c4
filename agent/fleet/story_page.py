"""A parcel's story as one page of HTML: no script, nothing fetched, fit to be printed. No I/O.

Everything that comes from a device or a label is escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from agent.fleet.story import Step, holder
from agent.fleet.story_words import EXCEPTIONS, HANDOVERS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6570; --line: #d5dbe1; --paper: #fff;
  --good: #1a7f37; --bad: #b42318; --warn: #9a6700; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.5rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
.now { font-size: 1.1rem; margin: .3rem 0 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0 0 0 .45rem; }
li { position: relative; border-left: 2px solid var(--line); padding: 0 0 1.1rem 1.4rem;
  break-inside: avoid; }
li:last-child { border-color: transparent; padding-bottom: 0; }
li::before { content: ""; position: absolute; left: -.46rem; top: .35rem; width: .8rem; height: .8rem;
  border-radius: 50%; background: var(--paper); border: 2px solid var(--soft); }
li.handover::before { background: var(--ink); border-color: var(--ink); }
li.exception::before { background: var(--bad); border-color: var(--bad); }
li.door { padding-bottom: .6rem; }
li.door::before { width: .5rem; height: .5rem; left: -.31rem; top: .45rem; }
li.exception .what { color: var(--bad); }
.what { font-weight: 600; overflow-wrap: anywhere; } li.door .what { font-weight: 400; }
time { font-variant-numeric: tabular-nums; color: var(--soft); margin-right: .6rem; }
.facts { color: var(--soft); font-size: .86rem; overflow-wrap: anywhere; }
.facts span + span::before { content: "\\00b7"; margin: 0 .45em; color: var(--soft); }
.unsure { color: var(--warn); } .proven { color: var(--good); }
.broken { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .82rem; }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  tr { break-inside: avoid; } }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A journal that the story rests on."""

    device: str
    epoch: str
    agreed: int
    """Entries that the device has signed for and that are here."""
    receipt: int
    key: str
    trust: str
    """How the key came to be trusted."""
    barred: bool


def page(parcel: str, steps: Sequence[Step], records: Sequence[Record], made: str) -> str:
    """The whole document. `made` says when, RFC 3339."""
    exceptions = [step for step in steps if step.kind in EXCEPTIONS]
    handovers = [step for step in steps if step.kind in HANDOVERS]
    body = [
        _head(parcel, steps),
        "<h2>What happened</h2>",
        f"<ol>{''.join(map(_item, steps))}</ol>",
        *_section("Handovers", ("Time", "What", "Device", "Proof"), map(_brief, handovers)),
        *_section("Exceptions", ("Time", "What", "Device", "Proof"), map(_brief, exceptions)),
        *_section("Locker openings", ("Ordered", "What", "Released", "Opened", "Closed"), _openings(steps)),
        *_section("Proof of each step", ("Entry", "Device", "Vouched for by"), map(_proof, steps)),
        *_section(
            "Records",
            ("Journal", "Signed to", "Receipt", "Device's key", "Trusted"),
            map(_record, records),
        ),
        f"<footer>Made {_text(made)} from the fleet's record. A checkpoint is the device's signature over all"
        " entries up to that number; a receipt is the same, countersigned by the fleet. Steps are shown in"
        " the order in which they happened; times that were corrected later say so.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{_text(parcel)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _head(parcel: str, steps: Sequence[Step]) -> str:
    devices = ", ".join(dict.fromkeys(step.told.device for step in steps))
    proven = sum(step.proof.receipt is not None for step in steps)
    bad = sum(step.proof.failure is not None for step in steps)
    word = f"{proven} of {len(steps)} steps under a receipt"
    shown = f'<span class="broken">{word}; {bad} NOT PROVEN</span>' if bad else _text(word)
    facts = (
        ("First", _text(_short(steps[0].time))),
        ("Last", _text(_short(steps[-1].time))),
        ("Devices", _text(devices)),
        ("Proof", shown),
    )
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    now = _text(holder(steps, parcel))
    return f'<h1>{_text(parcel)}</h1>\n<p class="now">{now[:1].upper()}{now[1:]}</p>\n<dl>{listed}</dl>'


def _item(step: Step) -> str:
    facts = [
        _span(step.told.device + (f", {step.where}" if step.where else "")),
        _span(f"time {step.time_words}", "" if step.ordered else "unsure"),
        _place(step),
        _span(step.proof.words, _proof_class(step)),
    ]
    return (
        f'<li class="{_class(step)}"><div>'
        f'<time datetime="{_text(step.time)}">{_text(_short(step.time))}</time>'
        f'<span class="what">{_text(step.what)}</span></div><div class="facts">{"".join(facts)}</div></li>\n'
    )


def _class(step: Step) -> str:
    if step.kind in EXCEPTIONS:
        return "exception"
    if step.kind in HANDOVERS:
        return "handover"
    return "door" if step.kind.startswith("door.") else ""


def _place(step: Step) -> str:
    if step.position is None:
        why = step.position_missing.replace("_", " ")
        return _span("no position" + (f": {why}" if why else ""))
    age = step.position.get("age_s")
    old = f", {age} s before" if isinstance(age, int | float) and age >= 1 else ""
    return _span(f"at {step.position.get('lat')}, {step.position.get('lon')}{old}")


def _proof_class(step: Step) -> str:
    if step.proof.failure is not None:
        return "broken"
    return "proven" if step.proof.receipt is not None else "unsure"


def _brief(step: Step) -> tuple[str, ...]:
    return _short(step.time), step.what, step.told.device, step.proof.words


def _openings(steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """Each opening that was ordered, and when its door is known to have done what."""
    for at, step in enumerate(steps):
        if step.kind == "locker.opening_intended":
            door: dict[str, str] = {}
            for each in steps[at + 1 :]:
                if each.kind == step.kind and each.told.ledger == step.told.ledger:
                    break
                if each.told.entry.get("subject") == step.told.entry.get("subject"):
                    door.setdefault(each.kind, each.time[11:19])
            seen = (door.get(f"door.{phase}", "-") for phase in ("pulsed", "opened", "closed"))
            yield (_short(step.time), step.what, *seen)


def _proof(step: Step) -> tuple[str, ...]:
    proof, entry = step.proof, step.told.entry
    told = [proof.words]
    if proof.receipt is not None:
        told.append(f"checkpoint {proof.checkpoint}")
        told += [f"signed by {', '.join(proof.signers)}"] if proof.signers else []
    return f"{entry['id']} {step.kind}", step.told.device, "; ".join(told)


def _record(record: Record) -> tuple[str, ...]:
    journal = f"{record.device} {record.epoch}" + (" (two histories signed)" if record.barred else "")
    return journal, str(record.agreed), str(record.receipt or "-"), record.key, record.trust


def _section(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Nothing where there are no rows."""
    shown = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    if not shown:
        return []
    head = "".join(f"<th>{_text(each)}</th>" for each in headings)
    return [
        f"<h2>{_text(title)}</h2>",
        f"<table><thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table>",
    ]


def _span(text: str, style: str = "") -> str:
    return f'<span class="{style}">{_text(text)}</span>' if style else f"<span>{_text(text)}</span>"


def _short(time: str) -> str:
    """`2026-11-24 08:15:30 UTC`."""
    return f"{time[:10]} {time[11:19]} UTC" if len(time) >= 20 and time.endswith("Z") else time


def _text(text: str) -> str:
    # What no person can see must not hide or turn what they can.
    return escape("".join(char if char.isprintable() else "?" for char in text))
