"""Estimate pi by throwing points at a square: `python examples/monte_carlo_pi.py --tasks 64`."""

import argparse
import math
import random

import lambdamr


def hits(seed: int, points: int) -> int:
    """Return how many of random points in the unit square lie within the quarter circle."""
    draw = random.Random(seed).random
    return sum(draw() ** 2 + draw() ** 2 <= 1.0 for _ in range(points))


def main() -> None:
    options = _parse_options()
    points = options.points // options.tasks
    with lambdamr.Executor() as executor:
        futures = executor.map(hits, range(options.tasks), [points] * options.tasks)
        total = executor.reduce(sum, futures).result()  # in a tree of tasks
    estimate = 4 * total / (points * options.tasks)
    print(f"pi is about {estimate:.4f} (off by {abs(estimate - math.pi):.4f})")
    print(f"{points * options.tasks:,} points in {options.tasks} tasks")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Estimate pi with random points.")
    parser.add_argument("--points", type=int, default=4_000_000, metavar="N")
    parser.add_argument("--tasks", type=int, default=16, metavar="N")
    return parser.parse_args()


if __name__ == "__main__":
    main()
