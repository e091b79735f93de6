"""Where the time and the money of a job went, as matplotlib figures.

Only this module loads matplotlib (an extra: lambdamr[plots]), and only the figures themselves:
nothing here needs a display, or changes what pyplot does.
"""

import os
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError(
        "Plots need matplotlib, which is not installed. Run: pip install 'lambdamr[plots]'"
    ) from error

from lambdamr.planning.estimating import Range
from lambdamr.planning.showing import dollars
from lambdamr.timing import Span, SpanKind, by_name, spans_of

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedStage

KINDS = ("timeline", "histogram", "cost")

_COLOURS = {
    SpanKind.QUEUED: "#d5d8dd",
    SpanKind.COLD: "#8fb8de",
    SpanKind.READ: "#5f7fb8",
    SpanKind.RUN: "#2e9e6b",
    SpanKind.WRITE: "#e3a23c",
    SpanKind.DIED: "#d6455d",
}
_STAGES = ("#2e9e6b", "#5f7fb8", "#e3a23c", "#8a6bb1", "#d6455d", "#8fb8de", "#8a8f98")

LEAST_SHARE = 0.01
"""A component that costs less of the whole is one of the others."""

_GAP = 0.12
"""Of a lane's height, left between two lanes."""


class Plot(Figure):
    """A figure that notebooks show as it is, whether or not pyplot is in use."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        data = BytesIO()
        self.savefig(data, format="png", dpi=120)
        return data.getvalue()


def plot(
    stages: "Sequence[TrackedStage]",
    kind: str,
    path: str | os.PathLike[str] | None,
    on: str | None,
) -> Plot:
    """Return a figure of stages that have ended.

    Args:    kind: one of KINDS. path: also write it there; the suffix says in which format.
             on: of a cost, where it is taken to have run, as of Job.cost.
    Raises:  ValueError: an unknown kind, or nothing to draw.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "cost":
        figure = cost_pie(_cost(stages, on))
    elif kind == "histogram":
        figure = histogram({name: _seconds(stage) for name, stage in by_name(stages).items()})
    else:
        jobs = list({stage.job_id: stage.job for stage in stages}.values())
        if len(jobs) > 1:
            raise ValueError(f"A timeline is that of one job; these futures are of {len(jobs)}.")
        figure = timeline([span for job in jobs for span in spans_of(job)])
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _cost(stages: "Sequence[TrackedStage]", on: str | None) -> dict[str, float]:
    """Return dollars by component, the middle of each range, of all jobs together."""
    from lambdamr.planning.cost import cost_of

    spent: dict[str, float] = {}
    for job in {stage.job_id: stage.job for stage in stages}.values():
        for component, usd in cost_of(job, (on, None, None)).by_component().items():
            spent[component] = spent.get(component, 0.0) + (usd.low + usd.high) / 2
    return spent


def _seconds(stage: "TrackedStage") -> list[float]:
    return [future.stats.seconds for future in stage.futures if future.stats is not None]


def timeline(spans: Sequence[Span]) -> Plot:
    """Draw what each lane did and waited for, the lanes of a stage above those of the next.

    Raises:  ValueError: there are no spans.
    """
    if not spans:
        raise ValueError("There is nothing to draw: no chunk of this job has run.")
    rows = _rows(spans)
    figure = Plot(9.0, min(12.0, 1.4 + 0.22 * max(6, len(rows))))
    axes = figure.add_subplot()
    unit, scale = ("ms", 1000.0) if max(s.begin_s + s.seconds for s in spans) < 1 else ("s", 1.0)
    for kind, colour in _COLOURS.items():
        boxes = [_box(span, rows[span.stage, span.lane], scale) for span in spans
                 if span.kind is kind]  # fmt: skip
        axes.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors="none"))
    axes.set_xlim(0, max(span.begin_s + span.seconds for span in spans) * scale * 1.01)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _name_stages(axes, rows)
    axes.set_xlabel(f"{_units()[unit]} since the submission")
    present = {span.kind for span in spans}
    legend = [Patch(color=c, label=str(kind)) for kind, c in _COLOURS.items() if kind in present]
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), frameon=False)
    _plain(axes)
    return figure


def _units() -> dict[str, str]:
    return {"ms": "milliseconds", "s": "seconds"}


def _rows(spans: Sequence[Span]) -> dict[tuple[str, int], int]:
    """Return the row of each lane: stages in the order of the spans, their lanes by number."""
    names = list(dict.fromkeys(span.stage for span in spans))
    lanes = sorted({(names.index(span.stage), span.lane) for span in spans})
    return {(names[stage], lane): row for row, (stage, lane) in enumerate(lanes)}


def _box(span: Span, row: int, scale: float) -> list[tuple[float, float]]:
    left, right = span.begin_s * scale, (span.begin_s + span.seconds) * scale
    top, bottom = row - 0.5 + _GAP / 2, row + 0.5 - _GAP / 2
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _name_stages(axes: Any, rows: Mapping[tuple[str, int], int]) -> None:
    """Name each stage at the middle of its lanes, and draw a line between two stages."""
    by_stage: dict[str, list[int]] = {}
    for (stage, _), row in rows.items():
        by_stage.setdefault(stage, []).append(row)
    labels = [
        f"{stage}\n{len(own)} lane{'s' if len(own) > 1 else ''}" for stage, own in by_stage.items()
    ]
    axes.set_yticks([sum(own) / len(own) for own in by_stage.values()], labels)
    axes.tick_params(axis="y", length=0)
    for own in list(by_stage.values())[1:]:
        axes.axhline(min(own) - 0.5, color="#b8bcc4", linewidth=0.8)


def histogram(seconds: Mapping[str, Sequence[float]]) -> Plot:
    """Draw how long the tasks of each stage took.

    Raises:  ValueError: no task has run.
    """
    shown = {name: values for name, values in seconds.items() if values}
    if not shown:
        raise ValueError("There is nothing to draw: no task has run.")
    figure = Plot(7.0, 0.6 + 2.0 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (name, values), colour in zip(panels, shown.items(), _cycle(len(shown)), strict=True):
        unit, scale = ("ms", 1000.0) if max(values) < 1 else ("s", 1.0)
        longest, middle = max(values) * scale, median(values) * scale
        bins = min(40, max(8, len(values) // 4))
        axes.hist([value * scale for value in values], bins=bins, range=(0, longest), color=colour)
        axes.axvline(middle, color="#444a55", linewidth=1, linestyle="--")
        axes.set_title(
            f"{name}: {len(values):,} tasks, median {middle:,.3g} {unit}, "
            f"longest {longest:,.3g} {unit}",
            fontsize=10, loc="left",
        )  # fmt: skip
        axes.set_ylabel("tasks")
        axes.set_xlabel(_units()[unit])
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return figure


def cost_pie(cost: Mapping[str, float]) -> Plot:
    """Draw what each component cost.

    Raises:  ValueError: nothing is known to have cost anything.
    """
    total = sum(cost.values())
    shown = {name: usd for name, usd in cost.items() if usd >= LEAST_SHARE * total and usd > 0}
    if total > sum(shown.values()):
        shown["other"] = total - sum(shown.values())
    if not total:
        raise ValueError(
            'There is nothing to draw: this cost nothing. on="aws" tells what it would.'
        )
    figure = Plot(6.4, 3.2)
    axes = figure.add_subplot()
    wedges, _ = axes.pie(
        list(shown.values()), startangle=90, counterclock=False, colors=_cycle(len(shown)),
        wedgeprops={"width": 0.42, "edgecolor": "white"},
    )  # fmt: skip
    labels = [f"{name}: {_money(usd)} ({usd / total:.0%})" for name, usd in shown.items()]
    figure.legend(wedges, labels, loc="outside right center", frameon=False)
    axes.text(0, 0, _money(total), ha="center", va="center", fontsize=13)
    return figure


def _money(usd: float) -> str:
    return dollars(Range(usd, usd))


def _cycle(count: int) -> list[str]:
    return [_STAGES[index % len(_STAGES)] for index in range(count)]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
