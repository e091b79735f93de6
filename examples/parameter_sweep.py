"""Find the best parameters of a classifier, one task per combination and fold.

`python examples/parameter_sweep.py`; needs scikit-learn (`pip install scikit-learn`).
"""

import itertools
from collections import defaultdict
from typing import Any, NamedTuple

from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

import lambdamr

FOLDS = 3


class Parameters(NamedTuple):
    C: float
    gamma: float


GRID = [Parameters(*each) for each in itertools.product((0.1, 1, 10, 100), (1e-4, 1e-3, 1e-2))]


def score(data: Any, parameters: Parameters, fold: int) -> float:
    """Return the accuracy of the classifier on the fold that it was not trained on."""
    features, classes = data
    train, test = list(StratifiedKFold(FOLDS).split(features, classes))[fold]
    model = SVC(**parameters._asdict()).fit(features[train], classes[train])
    return float(model.score(features[test], classes[test]))


def main() -> None:
    combinations = list(itertools.product(GRID, range(FOLDS)))
    with lambdamr.Executor() as executor:
        data = executor.put(load_digits(return_X_y=True))  # stored once, fetched once per worker
        scores = executor.starmap(score, [(data, *each) for each in combinations]).result()

    by_parameters: dict[Parameters, list[float]] = defaultdict(list)
    for (parameters, _), accuracy in zip(combinations, scores, strict=True):
        by_parameters[parameters].append(accuracy)
    ranking = sorted(by_parameters.items(), key=lambda item: -sum(item[1]))
    for parameters, found in ranking[:5]:
        print(f"{sum(found) / FOLDS:.4f}  C={parameters.C:g} gamma={parameters.gamma:g}")
    print(f"{len(GRID)} combinations, {FOLDS} folds, {len(scores)} tasks")


if __name__ == "__main__":
    main()
