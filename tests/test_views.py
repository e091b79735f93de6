"""How jobs and futures look in a notebook: HTML that needs nothing else, with what failed."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import lambdamr
from lambdamr.deployment import Deployment
from lambdamr.views import FailedTask, Row, View, view_html, view_text
from tests.counted import CountedBackend
from tests.gates import PATIENCE_S, Gate, pass_gate

VOID = {"br", "meta"}


class Strict(HTMLParser):
    """Checks that tags are closed in order, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "img"}
        assert not {name for name, _ in attrs} & {"onclick", "src", "href"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def text_of(html: str) -> str:
    """Return the text of HTML that is whole and stands by itself."""
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return re.sub(r"\s+", " ", parser.text)


def divide(number: int, *, by: object = 0) -> float:
    return number / (0 if by == "<zero>" else int(str(by)))


# --- the page -------------------------------------------------------------------------------------
def view(**changes: object) -> View:
    fields = {"title": "a job", "state": "running", "seconds": 2.0, "rows": (), **changes}
    return View(**fields)  # type: ignore[arg-type]


def test_rate_and_counts() -> None:
    """State, age, throughput, counts per stage, and a bar whose parts are the shares."""
    html = view_html(view(rows=(Row("map", 200, 50, 10), Row("reduce", 4, 0, 0))))
    text = text_of(html)
    assert "a job · running · 2.0 s · 25 tasks/s" in text
    assert "map 50 / 200 10 failed" in text
    assert "reduce 0 / 4" in text
    assert "width:20.00%" in html
    assert "width:5.00%" in html


def test_what_was_not_run_is_said_at_the_end() -> None:
    """A job that has ended early says how many tasks were left."""
    assert "1,000 not run" in text_of(
        view_html(view(state="failed", rows=(Row("m", 1010, 10, 1),)))
    )
    assert "not run" not in text_of(view_html(view(rows=(Row("m", 1010, 10, 1),))))


def test_failures_are_told_and_counted() -> None:
    """Input, last line and place; how many more there are."""
    failed = FailedTask("map task 3", "'x'", "ValueError: no", 'File "a.py", line 3, in f')
    text = text_of(view_html(view(rows=(Row("map", 9, 9, 2),), failures=(failed,))))
    assert "2 failed The first 1 failures" in text
    assert "map task 3 'x' ValueError: no File \"a.py\", line 3, in f" in text


def test_everything_is_escaped() -> None:
    """Text of the user's is never markup."""
    nasty = "<script>alert(1)</script>&'\""
    failed = FailedTask(nasty, nasty, nasty, nasty)
    html = view_html(view(title=nasty, note=nasty, rows=(Row(nasty, 1, 1, 1),), failures=(failed,)))
    assert text_of(html).count("<script>alert(1)</script>&'\"") == 7


def test_one_line_of_text() -> None:
    """For frontends without HTML."""
    shown = view_text(view(rows=(Row("map", 9, 4, 1), Row("reduce", 2, 0, 0))))
    assert shown == "a job running after 2.0 s: map 4/9 (1 failed), reduce 0/2"


# --- of real jobs -------------------------------------------------------------------------------
def test_failures_of_a_map(executor: lambdamr.Executor) -> None:
    """A failed task is shown with its input, error and line; keywords, markup and all."""
    futures = executor.map(divide, [7, 8], return_exceptions=True)
    futures.exceptions(PATIENCE_S)
    text = text_of(futures._repr_html_())
    assert f"lambdamr job {futures.job_id}" in text
    assert "map 2 / 2 2 failed" in text
    assert "map task 0 7 ZeroDivisionError: division by zero" in text
    assert ", in divide" in text
    single = executor.submit(divide, 1, by="<zero>")
    assert single.exception(PATIENCE_S) is not None
    shown = lambdamr.Futures([single])._repr_html_()
    assert "((1,), {'by': '<zero>'})" in text_of(shown)


def test_only_the_first_failures_are_shown(executor: lambdamr.Executor) -> None:
    """Of a thousand failures a notebook shows some, and how many there are."""
    futures = executor.map(divide, range(1000), return_exceptions=True)
    futures.exceptions(PATIENCE_S)
    text = text_of(futures._repr_html_())
    assert "1,000 failed The first 5 failures" in text
    assert text.count("ZeroDivisionError") == 5


def test_failure_of_a_split(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """A failed map task is shown with the file and the bytes that it read; a partition by name."""
    (tmp_path / "text").write_text("1\n2\nthree\n")
    job = executor.map_reduce(
        lambda line: [(int(line), 1)], lambdamr.lines(tmp_path / "text"), lambdamr.reducers.sum
    )
    with pytest.raises(ValueError, match="three"):
        job.result(PATIENCE_S)
    text = text_of(job._repr_html_())
    assert f"{tmp_path}/text [0, 10)" in text
    assert "ValueError: invalid literal for int()" in text
    assert "failed" in text

    def reducer(key: int, values: object) -> int:
        raise LookupError(key)

    broken = executor.map_reduce(lambda n: [(n, 1)], [5], reducer, reducers=1)
    with pytest.raises(LookupError):
        broken.result(PATIENCE_S)
    assert "reduce task 0 partition 0 LookupError: 5" in text_of(broken._repr_html_())


def test_an_input_that_cannot_be_shown(executor: lambdamr.Executor) -> None:
    """Its repr raises: the failure is shown without it."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    futures = executor.map(lambda shy: 1 / 0, [Shy()], return_exceptions=True)
    futures.exceptions(PATIENCE_S)
    text = text_of(futures._repr_html_())
    assert "ZeroDivisionError" in text
    assert "Shy" in text or "not shown" in text


def test_futures_of_several_jobs(executor: lambdamr.Executor, gate: Gate) -> None:
    """They are counted together, and the jobs named; while one runs the state is so."""
    first, held = executor.map(abs, range(3)), executor.submit(pass_gate, gate.path)
    first.result(PATIENCE_S)
    both = lambdamr.Futures([*first, held])
    text = text_of(both._repr_html_())
    assert "running" in text
    assert "tasks 3 / 4" in text
    assert held.job_id in text
    gate.open()
    held.result(PATIENCE_S)
    assert "tasks 4 / 4" in text_of(both._repr_html_())


class Deployed(CountedBackend):
    """A backend that says of itself to be a deployed runtime."""

    def __init__(self, region: str) -> None:
        super().__init__(width=2)
        self.deployment = Deployment(
            "default", region, "s3://b/root", "w", "s", "3.12", "x86_64", 1, 1769, 900, 512, {}
        )


@pytest.mark.parametrize(
    ("region", "said"),
    [("sa-east-1", r"\$[\d.]+"), ("eu-south-2", "cost unknown: no prices of its region")],
)
def test_what_a_job_in_the_cloud_costs(region: str, said: str) -> None:
    """Where the table has no prices, the job is shown and reported all the same."""
    backend = Deployed(region)
    with backend.executor() as executor:
        futures = executor.map(abs, range(2))
        backend.run()
        assert futures.result(PATIENCE_S) == [0, 1]
        assert re.search(f"done .*{said}.* map 2 / 2", text_of(futures._repr_html_()))
        assert ("cost" in str(futures.report())) == (region == "sa-east-1")


def test_a_running_and_a_cancelled_job(executor: lambdamr.Executor, gate: Gate) -> None:
    """The state follows the job."""
    path = gate.path
    job = executor.map_reduce(lambda n: [(n, pass_gate(path))], range(2), lambdamr.reducers.sum)
    gate.wait_until_entered()
    assert "running" in text_of(job._repr_html_())
    job.cancel()
    assert "cancelled" in text_of(job._repr_html_())


def test_outside_a_kernel_ipython_takes_the_html(executor: lambdamr.Executor) -> None:
    """`_ipython_display_` declines where no display can be updated."""
    futures = executor.map(abs, range(2))
    with pytest.raises(NotImplementedError):
        futures._ipython_display_()
    with pytest.raises(NotImplementedError):
        executor.map_reduce(lambda n: [(n, n)], [1], None)._ipython_display_()
