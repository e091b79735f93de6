"""What jobs of these tests run: it is shipped, so it imports nothing that the runtime lacks."""


def square(n: int) -> int:
    return n * n


def by_parity(n: int) -> list[tuple[int, int]]:
    return [(n % 2, n)]
