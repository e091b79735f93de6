"""Plots: figures of real jobs, files, and what is said where there is nothing to draw."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.timing import Span, SpanKind
from tests.gates import PATIENCE_S

plots: Any = pytest.importorskip("lambdamr.plots", exc_type=ImportError)


@pytest.fixture
def job(executor: lambdamr.Executor) -> lambdamr.Job:
    """A small job that is done."""
    job = executor.map_reduce(lambda n: [(n % 3, n)], range(60), lambdamr.reducers.sum, reducers=2)
    job.wait(PATIENCE_S)
    return job


def test_timeline_of_a_job(job: lambdamr.Job) -> None:
    """Each stage has its lanes, and what was done is in the legend."""
    figure = job.plot()
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [label.partition("\n")[0] for label in labels] == ["map", "reduce"]
    assert labels[1] == "reduce\n2 lanes"
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"read", "run"} <= legend
    assert "died" not in legend
    assert "since the submission" in axes.get_xlabel()


def test_every_span_is_drawn() -> None:
    """One box for each, in the row of its lane, and nothing lies outside the axes."""
    spans = [
        Span("map", lane, lane, kind, begin, 0.5)
        for lane in (0, 3)
        for kind, begin in ((SpanKind.QUEUED, 0.0), (SpanKind.RUN, 0.5), (SpanKind.DIED, 1.0))
    ]
    axes = plots.timeline([*spans, Span("reduce", 0, 0, SpanKind.RUN, 2.0, 1.0)]).axes[0]
    boxes = [path for drawn in axes.collections for path in drawn.get_paths()]
    assert len(boxes) == 7
    left, right = axes.get_xlim()
    assert (left, right) == (0, pytest.approx(3.03))
    assert {round(box.get_extents().ymin + 0.44) for box in boxes} == {0, 1, 2}


def test_histogram(job: lambdamr.Job) -> None:
    """A panel per stage that counts all of its tasks."""
    figure = job.plot("histogram")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.partition(":")[0] for title in titles] == ["map", "reduce"]
    bars: list[Any] = [axes.patches for axes in figure.axes]
    counted = [sum(bar.get_height() for bar in drawn) for drawn in bars]
    assert counted == [len(job.map_futures), len(job.reduce_futures)]


def test_cost_pie() -> None:
    """A wedge per component that cost something, and the sum in the middle."""
    figure = plots.cost_pie({"Lambda": 0.003, "PUT": 0.001, "storage": 0.0})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Lambda: $0.0030 (75%)", "PUT: $0.0010 (25%)",
    ]  # fmt: skip
    assert "$0.0040" in [text.get_text() for text in figure.axes[0].texts]


def test_small_costs_are_one_wedge() -> None:
    """What is below a hundredth is told together."""
    figure = plots.cost_pie({"Lambda": 1.0, "PUT": 0.002, "GET": 0.001})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.partition(":")[0] for text in texts] == ["Lambda", "other"]


@pytest.mark.parametrize(
    ("suffix", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_files(job: lambdamr.Job, tmp_path: Path, suffix: str, begin: bytes) -> None:
    """path= writes the figure too, in the format that the suffix names."""
    path = tmp_path / f"plot.{suffix}"
    job.plot("timeline", path)
    assert path.read_bytes().startswith(begin)


def test_notebooks_show_the_figure(job: lambdamr.Job) -> None:
    """Without pyplot as well: a figure has its PNG."""
    assert job.plot()._repr_png_().startswith(b"\x89PNG")


def test_plots_of_a_map(executor: lambdamr.Executor) -> None:
    """Futures plot too, failed ones and those of one task; of one job at a time."""
    futures = executor.map(lambda n: 1 / n, range(5), return_exceptions=True)
    assert "map" in futures.plot().axes[0].get_yticklabels()[0].get_text()
    assert len(lambdamr.Futures([executor.submit(abs, 1)]).plot("histogram").axes) == 1
    both = lambdamr.Futures([*futures, executor.submit(abs, 1)])
    with pytest.raises(ValueError, match="these futures are of 2"):
        both.plot()
    assert len(both.plot("histogram").axes) == 2


@pytest.mark.parametrize("kind", ["timeline", "histogram", "cost"])
def test_nothing_to_draw(executor: lambdamr.Executor, kind: str) -> None:
    """A job in which nothing ran, or whose cost nobody knows, is told so."""
    with pytest.raises(ValueError, match="nothing to draw"):
        executor.map(abs, []).plot(kind)


def test_an_unknown_kind(job: lambdamr.Job) -> None:
    """The error names the kinds that there are."""
    with pytest.raises(ValueError, match="timeline, histogram, cost, got 'pie'"):
        job.plot("pie")


def test_matplotlib_is_loaded_on_use_only() -> None:
    """Neither the library nor a report loads it; without it the error says what to install."""
    program = """
import sys
sys.modules["matplotlib"] = None  # as if it were not installed
import lambdamr
with lambdamr.Executor(workers=1) as executor:
    futures = executor.map(abs, [1])
    print(futures.report().status)
    try:
        futures.plot()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "done\nPlots need matplotlib, which is not installed. Run: pip install 'lambdamr[plots]'\n"
    ), done.stderr


def test_cost_of_a_job(job: lambdamr.Job) -> None:
    """On this machine a job costs nothing; what it would have cost on AWS has its components."""
    with pytest.raises(ValueError, match='on="aws" tells what it would'):
        job.plot("cost")
    legend = job.plot("cost", on="aws").legends[0]
    assert any(text.get_text().startswith("PUT: $") for text in legend.get_texts())
