"""Records of the runtime are frozen dataclasses in all but what defining them costs."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from lambdamr_runtime.frozen import frozen, replace


@frozen
class Spot:
    """Two numbers."""

    x: int
    y: float = 2.5
    """Upwards."""

    @property
    def total(self) -> float:
        return self.x + self.y


@dataclasses.dataclass(frozen=True, slots=True)
class Like:
    """The same by the standard library."""

    x: int
    y: float = 2.5


def test_a_record_is_its_fields() -> None:
    """Positions, names and defaults as ever; equality, hash and repr by the fields."""
    assert Spot(1) == Spot(x=1, y=2.5) != Spot(2)
    assert {Spot(1), Spot(1, 2.5)} == {Spot(1)}
    assert hash(Spot(1)) == hash(Like(1))
    assert repr(Spot(1)) == "Spot(x=1, y=2.5)"
    assert Spot(1).total == 3.5
    assert Spot(1) != Like(1)  # type: ignore[comparison-overlap]  # another class with equal fields
    match Spot(3):
        case Spot(x, y):
            assert (x, y) == (3, 2.5)


@pytest.mark.parametrize("values", [(), (1, 2.0, 3), (1, 2.0)])
def test_arguments_are_checked_as_those_of_a_function(values: tuple[Any, ...]) -> None:
    """The first record of a class too, whose `__init__` is made by then."""

    @frozen
    class Fresh:
        x: int
        y: float = 2.5

    if len(values) == 2:
        assert Fresh(*values).y == 2.0
    else:
        for _ in range(2):
            with pytest.raises(TypeError, match="__init__"):
                Fresh(*values)


def test_a_record_does_not_change() -> None:
    """Nor does it take other attributes; a changed one is a copy."""
    spot = Spot(1)
    for name in ("x", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(spot, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del spot.x
    assert not hasattr(spot, "__dict__")
    assert replace(spot, x=5) == Spot(5)
    with pytest.raises(TypeError):
        replace(spot, z=5)  # type: ignore[call-arg]  # no such field
    assert spot == Spot(1)


def test_a_record_travels() -> None:
    """Pickled and copied, before any other of its class was made, too."""
    data = pickle.dumps(Spot(4, 1.0))
    for _ in range(2):
        assert pickle.loads(data) == copy.deepcopy(Spot(4, 1.0)) == Spot(4, 1.0)


def test_dataclasses_knows_it() -> None:
    """What asks for fields finds them."""
    kind: Any = Spot  # Any: mypy does not take it for a dataclass
    described = [(it.name, it.type, it.default) for it in dataclasses.fields(kind)]
    assert described == [(it.name, it.type, it.default) for it in dataclasses.fields(Like)]
    assert dataclasses.asdict(kind(1)) == {"x": 1, "y": 2.5}
    assert dataclasses.replace(kind(1), y=0.0) == Spot(1, 0.0)
    assert Spot.__doc__ == "Two numbers."
    assert Spot.__module__ == __name__
    assert dataclasses.is_dataclass(Spot)
