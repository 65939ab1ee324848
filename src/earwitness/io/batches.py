"""Items in batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`; the last may be shorter (itertools.batched in Python 3.12)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
