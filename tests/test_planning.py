"""Plans, prices and costs: what they say, and that the two agree."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.planning.counting import Kind, Side
from lambdamr.planning.estimating import Range
from lambdamr.planning.reading import reads_of
from lambdamr.planning.waiting import client_looks, look_times, waiting_cost
from lambdamr.polling import next_pause, pages, prefixes_to_list
from lambdamr.prices import PRICES, prices_of
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.lanes import LanePlan, automatic_chunksize
from lambdamr_runtime.limits import MIB, POLL_FIRST_S, POLL_MAX_S
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import open_store
from tests.counted import CountedBackend

NOVEL = str(Path(__file__).parents[1] / "examples/data/pride_and_prejudice.txt")
WIDTH = 800
KEYS = StageKeys("20260101-000000-0123456789ab", "map")


def double(item: Any) -> Any:
    return item * 2


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


# --- waiting -----------------------------------------------------------------------------------
def test_an_hour_of_waiting_for_ten_thousand_tasks_costs_under_five_cents() -> None:
    """Whatever the chunks: one task each, or as the executor cuts them."""
    for chunksize in (1, automatic_chunksize(10_000, WIDTH)):
        for region in PRICES:
            plan = LanePlan(10_000, chunksize, WIDTH)
            assert waiting_cost(plan, 3600, prices_of(region)) < 0.05


def test_a_client_looks_often_at_first_and_rarely_later() -> None:
    """Pauses grow from 50 ms, and are never over ten seconds."""
    times = list(look_times(3600))
    pauses = [round(after - before, 6) for before, after in itertools.pairwise(times)]
    assert pauses[0] == POLL_FIRST_S
    assert pauses == sorted(pauses)
    assert max(pauses) == pytest.approx(POLL_MAX_S)
    assert len(times) < 600
    assert next_pause(10.0, 100_000.0) == POLL_MAX_S


def test_looks_list_what_is_least() -> None:
    """All outcomes at once while they fit in fewer pages than there are open groups."""
    plan = LanePlan(10_000, 1, WIDTH)
    everything = range(plan.chunks)
    assert prefixes_to_list(KEYS, plan, everything, paged=True) == [KEYS.all_outcomes]
    last = plan.chunks_in(3)[-1]
    assert prefixes_to_list(KEYS, plan, [last], paged=True) == [KEYS.outcomes(3)]
    assert len(prefixes_to_list(KEYS, plan, everything, paged=False)) == plan.groups
    assert prefixes_to_list(KEYS, LanePlan(8, 1, 2), range(8), paged=True) == [KEYS.outcomes(0)]
    assert [pages(n) for n in (0, 1, 1000, 1001)] == [1, 1, 1, 2]


def test_a_poller_looks_as_the_model_says() -> None:
    """Between two looks of a client nothing happens: each asks for the end and lists once."""
    backend = CountedBackend(3)
    with backend.executor() as executor:
        futures = executor.map(double, range(9), chunksize=1)
        backend.wait_for_looks(3)
        backend.run()
        assert futures.result() == [n * 2 for n in range(9)]
    looks = backend.missed[str(Kind.HEAD)]  # the manifest, when there is no news
    one = client_looks(LanePlan(9, 1, 3), 0.0)
    assert one == {Kind.LIST: 1, Kind.GET: 2, Kind.HEAD: 1}
    assert backend.missed[str(Kind.GET)] == 2 * looks
    assert looks <= backend.missed[str(Kind.LIST)] <= looks + 4, "with the ones that found news"


def test_only_the_first_incomplete_stage_is_looked_at() -> None:
    """Nothing of a stage is there before the one before it is complete."""
    backend = CountedBackend(3)
    with backend.executor() as executor:
        job = executor.map_reduce(words, iter(["a b"] * 9), lambdamr.reducers.sum, reducers=3)
        backend.wait_for_looks(3)
        assert set(backend.listed) <= {
            StageKeys(job.job_id, "map").all_outcomes,
            *(StageKeys(job.job_id, "map").outcomes(group) for group in range(3)),
        }
        backend.run()
        assert job.wait(20)


# --- prices ------------------------------------------------------------------------------------
def test_prices_can_be_replaced() -> None:
    """One of a region, or all of a region that the table does not have."""
    assert prices_of("us-east-1", {"put": 0.0}).put == 0.0
    own = {"put": 1.0, "get": 2.0, "storage_gb_month": 3.0}
    assert prices_of("mars-north-1", own).get == 2.0
    assert prices_of("us-east-1").gb_s("arm64") < prices_of("us-east-1").gb_s("x86_64")


@pytest.mark.parametrize(
    ("region", "changes", "said"),
    [
        ("mars-north-1", {}, r"not in the table of 2026.*config set prices"),
        ("mars-north-1", {"put": 1.0}, "Give get, storage_gb_month as"),
        ("us-east-1", {"putt": 1.0}, "no price 'putt'"),
        ("us-east-1", {"put": -1.0}, "must be a number >= 0"),
        ("us-east-1", {"put": True}, "must be a number >= 0"),
    ],
)
def test_what_is_no_price_is_refused(region: str, changes: dict[str, float], said: str) -> None:
    """An unknown region or name is told with those that there are."""
    with pytest.raises(ValueError, match=said):
        prices_of(region, changes)


def test_prices_stand_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: lambdamr.Executor
) -> None:
    """A table [prices] and a region in config.toml count for every plan."""
    path = tmp_path / "config.toml"
    path.write_text('region = "sa-east-1"\n[prices]\ninvocation = 1.0\n')
    monkeypatch.setenv("LAMBDAMR_CONFIG", str(path))
    plan = executor.plan(double, range(3), chunksize=1, on="aws", task_s=0.0)
    assert plan.target.region == "sa-east-1"
    assert plan.usd.low >= 3.0


# --- plans -------------------------------------------------------------------------------------
def test_a_plan_runs_nothing(root: str) -> None:
    """Nothing is stored, and no worker is started."""
    with lambdamr.Executor(root=root) as executor:
        plan = executor.plan(double, range(100))
        assert plan.tasks == 100
        assert [entry.key for entry in open_store(root).list("jobs")] == []


def test_a_plan_is_text_html_and_data(executor: lambdamr.Executor) -> None:
    """All three tell the same figures."""
    plan = executor.plan(
        words, NOVEL, lambdamr.reducers.sum, on="aws", region="eu-west-2", reducers=4
    )
    shown = repr(plan)
    assert "map + reduce" in shown
    assert "eu-west-2" in shown
    assert "Lambda GB-s" in shown
    assert "684.8 kB" in shown
    assert "<table>" in plan._repr_html_()
    record = json.loads(json.dumps(plan.to_dict()))
    assert [stage["name"] for stage in record["stages"]] == ["map", "reduce"]
    assert record["usd"]["low"] <= record["usd"]["high"]
    assert record["usd"]["low"] == pytest.approx(
        sum(charge["usd"]["low"] for charge in record["charges"])
    )


def test_the_third_argument_tells_the_call(executor: lambdamr.Executor) -> None:
    """A reducer, a function, None or an option of map_reduce; other iterables are those of map."""

    def names(*args: Any, **options: Any) -> str:
        return executor.plan(*args, **options).job.name

    assert names(double, [1, 2]) == "map"
    assert names(pow, [1, 2], [3, 4]) == "map"
    assert names(words, iter("ab"), lambdamr.reducers.sum) == "map + reduce"
    assert names(words, iter("ab"), double) == "map + reduce"
    assert names(words, iter("ab"), None) == "map"
    assert names(words, iter("ab"), reducer=double, reducers=2) == "map + reduce"
    futures = executor.map(double, [1, 2, 3])
    assert names(sum, futures, arity=2) == "reduce-1 + reduce-2"


def test_what_cannot_be_planned_is_refused(executor: lambdamr.Executor) -> None:
    """As the call itself would refuse it; and nothing is no plan."""
    with pytest.raises(ValueError, match="no items"):
        executor.plan(double, [])
    with pytest.raises(ValueError, match="chunksize"):
        executor.plan(double, [1], chunksize=0)
    with pytest.raises(ValueError, match='on must be "local"'):
        executor.plan(double, [1], on="moon")
    with pytest.raises(lambdamr.InputNotFound):
        executor.plan(words, "nothing/there.txt", None)
    with pytest.raises(TypeError, match="chunk_size"):
        executor.plan(double, [1], chunk_size=2)


def test_measured_seconds_decide(executor: lambdamr.Executor) -> None:
    """Ten seconds a task, a thousand tasks, a hundredth of an hour's lanes."""
    plan = executor.plan(double, range(1000), on="aws", task_s=10, chunksize=1)
    times = plan.estimate.times["map"]
    assert times.tasks_s == Range(10_000, 10_000)
    assert times.waves == 2
    assert 20 <= plan.seconds.low <= plan.seconds.high < 40
    gb_s = 10_000 * plan.target.memory_mb / 1024
    assert plan.usd.low >= gb_s * prices_of("us-east-1").gb_s_x86


def test_a_plan_names_the_limits_that_it_touches(executor: lambdamr.Executor) -> None:
    """Many tiny chunks write outcomes faster than one prefix of S3 takes them."""
    plan = executor.plan(double, range(100_000), on="aws", task_s=0.0001, chunksize=1)
    assert any(rate.share > 0.5 for rate in plan.estimate.rates)
    assert "3,500/s" in repr(plan)


# --- reading -----------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 10_000, 2 * MIB, 2 * MIB + 1, 5 * MIB])
@pytest.mark.parametrize("splits", [1, 2, 3])
def test_the_reads_of_splits_are_known(size: int, splits: int, tmp_path: Path) -> None:
    """Lines, blocks and records: as many ranged reads as were predicted."""
    (tmp_path / "in").write_bytes((b"x" * 99 + b"\n") * (size // 100) + b"y" * (size % 100))
    split_bytes = max(1, -(-size // splits))
    for made in (
        lambdamr.lines(tmp_path / "in", split_bytes=split_bytes),
        lambdamr.blocks(tmp_path / "in", split_bytes=split_bytes),
        lambdamr.records(tmp_path / "in", record_bytes=1, split_bytes=split_bytes),
        lambdamr.csv(tmp_path / "in", header=["a"], quoted_newlines=False, split_bytes=split_bytes),
    ):
        tasks = made.tasks(1, 1024)
        counted = _Counted(str(tmp_path))
        for split in (split for task in tasks for split in task):
            for _ in made.reader.read(split, counted).batches():
                pass
        assert (counted.reads, True) == reads_of(made.reader, tasks), made.reader


def test_the_reads_of_files_are_the_mappers_own() -> None:
    """What a mapper reads of an object nobody knows before."""
    reader = lambdamr.objects("s3://b/k").reader
    assert reads_of(reader, [[Split("s3://b", "k", 0, 10, 10, "")]]) == (1, False)


class _Counted:
    """Ranges of a directory, counted."""

    def __init__(self, root: str) -> None:
        self._store = open_store(root)
        self.reads = 0

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        self.reads += 1
        return self._store.view_range(key, start, length, etag)


# --- costs -------------------------------------------------------------------------------------
def test_the_cost_of_a_map_is_that_of_its_plan(executor: lambdamr.Executor) -> None:
    """The same model with the seconds that were measured."""
    plan = executor.plan(double, range(500))
    futures = executor.map(double, range(500))
    futures.result()
    cost = futures.cost()
    assert cost.is_over
    for side in Side:
        assert cost.requests(side) == plan.requests(side)
    assert cost.usd == Range(0, 0), "on this machine"
    assert cost.seconds.low == cost.seconds.high > 0


@pytest.mark.parametrize("reducer", [lambdamr.reducers.sum, None])
def test_the_cost_of_a_map_reduce_is_that_of_its_plan(
    reducer: Any, executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """With output: by component and by stage, and both add up to the same."""
    options: dict[str, Any] = {"output": str(tmp_path / "out"), "format": "csv"}
    plan = executor.plan(words, NOVEL, reducer, **options)
    job = executor.map_reduce(words, NOVEL, reducer, **options)
    assert job.wait(60)
    made = {(c.stage, c.what): c.number for c in job.cost().estimate.counts}
    planned = {(c.stage, c.what): c.number for c in plan.estimate.counts}
    for key, number in planned.items():
        if key[1] in ("manifest", "function", "arguments"):
            assert 1 <= made[key] <= number, "a warm process has them already"
        else:
            assert made[key] == number, key
    cost = job.cost(on="aws", region="eu-west-2")
    assert sum(usd.low for usd in cost.by_component().values()) == pytest.approx(cost.usd.low)
    assert sum(usd.high for usd in cost.by_stage().values()) == pytest.approx(cost.usd.high)
    assert cost.by_component()["Lambda GB-s"].low > 0
    assert job.job_id in repr(cost)
    assert json.loads(json.dumps(cost.to_dict()))["over"] is True
    assert "<table>" in cost._repr_html_()


def test_an_attached_job_has_a_cost_too(executor: lambdamr.Executor) -> None:
    """What only its submitter knew stands at its least."""
    futures = executor.map(double, range(50))
    futures.result()
    again = lambdamr.attach(futures.job_id)
    assert isinstance(again, lambdamr.Futures)
    again.result()
    assert again.cost().requests("workers") == futures.cost().requests("workers")


def test_tasks_that_were_repeated_cost_more(root: str) -> None:
    """An execution that died has had an invocation, a record and a look of its own."""
    marker = Path(root).parent / "died"
    with lambdamr.Executor(workers=1, root=root) as executor:
        futures = executor.map(_die_once, [str(marker)] * 3, chunksize=1)
        futures.result()
        plan = executor.plan(_die_once, [str(marker)] * 3, chunksize=1)
        invocations = futures.cost().requests("workers")["Invoke"]
        assert invocations == plan.requests("workers").get("Invoke", 0) + 1


def _die_once(marker: str) -> None:
    import os

    if not os.path.exists(marker):
        with open(marker, "w"):
            pass
        os._exit(1)


def test_nothing_has_no_cost(executor: lambdamr.Executor) -> None:
    """A map over nothing is no job."""
    with pytest.raises(ValueError, match="no futures"):
        executor.map(double, []).cost()
