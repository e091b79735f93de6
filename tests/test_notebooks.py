"""Notebooks, in real kernels: what is shown in place, what an interrupt does, and the tour."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gates import Gate

jupyter_client = pytest.importorskip("jupyter_client")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


class Kernel:
    """A kernel, and the messages that the cells run in it have sent."""

    def __init__(self, folder: Path, root: str) -> None:
        environment = {
            **os.environ,
            "LAMBDAMR_ROOT": root,
            "LAMBDAMR_PROGRESS": "1",
            "LAMBDAMR_WORKERS": "2",
            "IPYTHONDIR": str(folder / "ipython"),
        }
        self._manager: Any = jupyter_client.KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(ROOT), env=environment)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE_S)

    def messages(self, code: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run a cell, and yield its messages (type, content) until it is over."""
        asked = self._client.execute(code)
        while True:
            message = self._client.get_iopub_msg(timeout=PATIENCE_S)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return
            yield kind, content

    def run(self, code: str) -> list[tuple[str, dict[str, Any]]]:
        return [m for m in self.messages(code) if m[0] not in {"status", "execute_input"}]

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path, root: str) -> Iterator[Kernel]:
    """A kernel with the library, an executor and gated tasks."""
    kernel = Kernel(tmp_path, root)
    kernel.run(
        "import lambdamr, time\nfrom tests.gates import pass_gate\nexecutor = lambdamr.Executor()"
    )
    yield kernel
    kernel.close()


def text_of(content: dict[str, Any]) -> str:
    return str(content["data"]["text/plain"])


def display_of(content: dict[str, Any]) -> str:
    return str(content["transient"]["display_id"])


MAP = "executor.map(pass_gate, [{path!r}] * 2, [1, 2], chunksize=1)"
REDUCE = "executor.map_reduce(lambda n: [(n, pass_gate({path!r}, n))], [1], lambdamr.reducers.sum)"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (f"{MAP}.result()", "map 2/2"),
        (f"await {MAP}", "map 2/2"),
        (f"await {REDUCE}", r"map 1/1, reduce (\d)/\1"),
    ],
    ids=["result", "await futures", "await job"],
)
def test_a_wait_shows_its_job_in_place(kernel: Kernel, gate: Gate, code: str, end: str) -> None:
    """One display, which is updated while the cell waits and ends as the job has; then the value.
    HTML and text, no widgets, nothing on stderr.
    """
    shown: list[tuple[str, dict[str, Any]]] = []
    for kind, content in kernel.messages(code.format(path=gate.path)):
        shown.append((kind, content))
        is_shown = kind in {"display_data", "update_display_data"}
        if is_shown and not re.search(f"{end}$", text_of(content)):
            gate.open()
    kinds = [kind for kind, _ in shown if kind not in {"status", "execute_input"}]
    assert kinds[0] == "display_data"
    assert set(kinds[1:-1]) == {"update_display_data"}
    assert kinds[-1] == "execute_result"
    displays = [content for kind, content in shown if kind.endswith("display_data")]
    assert len({display_of(content) for content in displays}) == 1
    assert all(set(content["data"]) == {"text/html", "text/plain"} for content in displays)
    assert "running" in text_of(displays[0])
    assert re.search(rf" done after \d+\.\d s: {end}$", text_of(displays[-1]))


def test_a_short_wait_shows_nothing(kernel: Kernel) -> None:
    """Where results come at once there is nothing but the value."""
    kernel.run("executor.map(abs, range(3)).result()")
    messages = kernel.run("executor.map(abs, range(3)).result()")
    assert [kind for kind, _ in messages] == ["execute_result"]


def test_a_job_that_was_shown_is_updated_by_a_later_wait(kernel: Kernel, gate: Gate) -> None:
    """A cell that ends with a job shows it; waiting in another cell brings that up to date."""
    code = f"""
path = {gate.path!r}
job = executor.map_reduce(lambda n: [(n, pass_gate(path, n))], [1], lambdamr.reducers.sum)
job"""
    (first,) = kernel.run(code)
    assert first[0] == "display_data"
    assert "running" in text_of(first[1])
    gate.wait_until_entered()
    gate.open()
    messages = kernel.run("job.result()")
    updates = [c for k, c in messages if k == "update_display_data"]
    own = [c for c in updates if display_of(c) == display_of(first[1])]
    assert "done" in text_of(own[-1])


def test_futures_that_are_done_show_their_end(kernel: Kernel) -> None:
    """The last line of a cell is enough; a part of a map is shown as such."""
    kernel.run("futures = executor.map(lambda n: 1 / n, [1, 0], return_exceptions=True)")
    kernel.run("futures.result()")
    (whole,) = kernel.run("futures")
    assert "done" in text_of(whole[1])
    assert "ZeroDivisionError" in whole[1]["data"]["text/html"]
    (part,) = kernel.run("futures[:1]")
    assert part[0] == "execute_result"
    assert "tasks" in part[1]["data"]["text/html"]


@pytest.mark.parametrize("code", ["futures.result()", "await futures"])
def test_an_interrupt_ends_the_wait_alone(kernel: Kernel, gate: Gate, code: str) -> None:
    """The cell ends by KeyboardInterrupt, the display says so, and the job goes on."""
    kernel.run(f"futures = executor.map(pass_gate, [{gate.path!r}], ['on'], chunksize=1)")
    messages = []
    for kind, content in kernel.messages(code):
        messages.append((kind, content))
        if kind == "display_data":
            kernel.interrupt()
    errors = [c["ename"] for k, c in messages if k == "error"]
    assert set(errors) & {"KeyboardInterrupt", "CancelledError"}
    last = [content for kind, content in messages if kind == "update_display_data"][-1]
    assert "the wait was interrupted, the job goes on" in last["data"]["text/html"]
    gate.open()
    (result,) = [c for k, c in kernel.run("futures.result()") if k == "execute_result"]
    assert text_of(result) == "['on']"


def test_progress_can_be_switched_off(kernel: Kernel) -> None:
    """progress=False: a long wait shows nothing either; a job still shows itself."""
    code = "lambdamr.Executor(progress=False).map(lambda n: time.sleep(0.4), range(4)).result()"
    messages = kernel.run(code)
    assert [kind for kind, _ in messages] == ["execute_result"]


# --- the tour -------------------------------------------------------------------------------------
def test_the_tour_runs(root: str, tmp_path: Path) -> None:
    """examples/tour.ipynb runs as it stands, and shows a plan, a job, plots, a failure."""
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=PATIENCE_S, kernel_name="python3")
    os.environ["IPYTHONDIR"] = str(tmp_path / "ipython")  # conftest restores the environment
    client.execute(cwd=str(tmp_path))
    kinds = [output.output_type for cell in notebook.cells for output in cell.get("outputs", ())]
    assert "error" not in kinds
    shown = [
        output.data for cell in notebook.cells for output in cell.get("outputs", ())
        if "data" in output
    ]  # fmt: skip
    assert sum("image/png" in data for data in shown) == 3
    texts = "\n".join(str(data.get("text/plain", "")) for data in shown)
    assert "plan of map + reduce" in texts
    assert "read 31,053,850 bytes, 336,776 records" in texts
    assert "ExpressJet Airlines" in texts
    assert "invalid literal for int() with base 10: 'NA'" in texts
    assert all(each in texts for each in ("'EWR': 120835", "'JFK': 111279", "'LGA': 104662"))


def test_the_tour_is_what_its_script_makes() -> None:
    """The saved notebook has the cells of docs/make_tour.py, executed."""
    script = ROOT / "docs" / "make_tour.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_a_job_that_ends_while_it_is_drawn(kernel: Kernel) -> None:
    """It is drawn again, as it has ended."""
    shown = kernel.run(
        """
        import lambdamr.views
        really = lambdamr.views.job_view

        def slowly(job, *note):
            lambdamr.views.job_view = really
            view = really(job, *note)
            job.wait(60)
            while job.poller.find(job.manifest.job):
                time.sleep(0.01)
            return view

        lambdamr.views.job_view = slowly
        executor.map(time.sleep, [0.3])
        """
    )
    texts = [text_of(content) for kind, content in shown if kind.endswith("display_data")]
    assert [text.rpartition(": ")[2] for text in texts] == ["map 0/1", "map 1/1"]
