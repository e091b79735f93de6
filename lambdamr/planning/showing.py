"""Plans and costs for reading: tables as aligned text and as HTML."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from lambdamr.planning.counting import Count, Kind, Side
from lambdamr.planning.estimating import COMPONENTS, Estimate, Range, total
from lambdamr.planning.shapes import JobShape
from lambdamr.planning.targets import Target

Table = tuple[str, list[list[str]]]
"""A title and rows of cells; the first cell of a row names it."""


def text_of(title: str, *tables: Table) -> str:
    """Return a title and tables as lines; empty tables are left out."""
    lines = [title]
    for name, rows in tables:
        if rows:
            lines.append(f"  {name}")
            lines += [f"    {line}" for line in _aligned(rows)]
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines: a text behind its name, or numbers in columns."""
    if len(rows[0]) == 2:
        return [f"{name.ljust(max(len(row[0]) for row in rows))}  {text}" for name, text in rows]
    columns = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines: list[str] = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(widths[i]) for i, cell in enumerate(row[1:], 1))
        lines.append("  ".join((first, *rest)).rstrip())
    return lines


def html_of(title: str, *tables: Table) -> str:
    """Return the same as HTML."""
    parts = [f"<div><b>{escape(title)}</b>"]
    for name, rows in tables:
        if not rows:
            continue
        body = "".join(
            "<tr><td style='text-align:left'>"
            + "</td><td style='text-align:right'>".join(map(escape, row))
            + "</td></tr>"
            for row in rows
        )
        parts.append(f"<table><caption style='text-align:left'>{name}</caption>{body}</table>")
    return "".join((*parts, "</div>"))


def seconds(value: Range) -> str:
    """Return seconds for reading."""
    return _between(value, _seconds)


def _seconds(value: float) -> str:
    if value >= 7200:
        return f"{value / 3600:,.1f} h"
    if value >= 120:
        return f"{value / 60:,.0f} min"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def dollars(value: Range) -> str:
    """Return dollars for reading, with two digits that tell something."""
    return _between(value, _dollars)


def _dollars(value: float) -> str:
    if value == 0:
        return "$0"
    if value < 0.000001:
        return "<$0.000001"
    if value >= 1:
        return f"${value:,.2f}"
    return f"${value:.{2 if value >= 0.1 else _places(value)}f}"


def _places(value: float) -> int:
    """Return decimal places that show two digits of a value below 1."""
    places = 2
    while value * 10**places < 10:
        places += 1
    return places


def number(value: Range) -> str:
    return _between(value, lambda each: f"{each:,.0f}" if each >= 10 else f"{each:.2g}")


def _between(value: Range, shown: Callable[[float], str]) -> str:
    low, high = shown(value.low), shown(value.high)
    return low if low == high else f"{low} – {high}"


def size(value: float) -> str:
    """Return bytes for reading."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def stages_table(job: JobShape, made: Estimate) -> list[list[str]]:
    """Return a row per stage."""
    head = ["", "tasks", "splits", "chunks", "lanes", "waves", "launch levels", "input", "seconds"]
    rows = [
        [
            shape.name,
            f"{shape.plan.tasks:,}",
            f"{shape.splits:,}" if shape.splits else "",
            f"{shape.plan.chunks:,}",
            f"{shape.plan.lanes:,}",
            f"{made.times[shape.name].waves:,}",
            f"{made.times[shape.name].levels}",
            size(shape.input_bytes) if shape.input_bytes else "",
            seconds(made.times[shape.name].wall_s),
        ]
        for shape in job.stages
    ]
    kept = [i for i, name in enumerate(head) if not name or any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in (head, *rows)]


def totals_table(made: Estimate, wire: dict[str, int], target: Target) -> list[list[str]]:
    """Return seconds, dollars and bytes."""
    cost = dollars(made.usd) if target.is_aws else "$0 on this machine"
    bytes_ = " · ".join(f"{name} {size(value)}" for name, value in wire.items() if value)
    return [["time", seconds(made.seconds)], ["cost", cost], ["bytes", bytes_]]


def requests_table(made: Estimate) -> list[list[str]]:
    """Return requests by kind, of the client and of the workers, and those that hang on time."""
    rows = [["", "client", "workers", "and over time"]]
    for kind in Kind:
        sides = [_number_of(made.counts, kind, side) for side in Side]
        low, high = (_number_of(counts, kind, None) for counts in made.timed)
        if any(sides) or high:
            rows.append([str(kind), *(f"{n:,}" for n in sides), number(Range(low, high))])
    return rows


def _number_of(counts: Iterable[Count], kind: Kind, side: Side | None) -> int:
    return sum(c.number for c in counts if c.kind is kind and side in (None, c.side))


def charges_table(made: Estimate) -> list[list[str]]:
    """Return a row per component and a column per stage."""
    stages = list(dict.fromkeys(charge.stage for charge in made.charges))
    rows = [["", *(stage or "job" for stage in stages), "quantity", "dollars"]]
    for component in COMPONENTS:
        found = [charge for charge in made.charges if charge.component == component]
        by_stage = [total(c.usd for c in found if c.stage == stage) for stage in stages]
        rows.append(
            [
                component,
                *map(dollars, by_stage),
                number(total(charge.quantity for charge in found)),
                dollars(total(charge.usd for charge in found)),
            ]
        )
    return rows


def limits_table(made: Estimate, least: float) -> list[list[str]]:
    """Return the rates that come near a limit of S3."""
    return [
        [rate.what, f"{rate.per_s:,.0f}/s", f"of {rate.limit_per_s:,}/s", _verdict(rate.share)]
        for rate in made.rates
        if rate.share >= least
    ]


def _verdict(share: float) -> str:
    if share < 1:
        return f"{share:.0%}"
    return "over it: S3 answers 503 for a while, which is retried"
