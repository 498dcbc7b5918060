"""Which pieces of a list one job of an array makes, and where a list is cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from cgeartheye.errors import InputError

Item = TypeVar("Item")
_LONGEST: Final = 4
"""Times the mean length at which a piece ends in any case."""


@dataclass(frozen=True)
class Part:
    """The ``i``-th of ``n`` parts of every list: pieces i - 1, i - 1 + n, i - 1 + 2 n ..."""

    i: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises:
            InputError: if it is not of that form, or i is not in 1 .. n.
        """
        first, _, last = text.partition("/")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise InputError(f"{text!r} is no part", where="--part", remedy="give i/n with i from 1 to n, such as 3/8")
        return cls(int(first), int(last))

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"

    @property
    def key(self) -> str:
        """Its name in a file's."""
        return f"{self.i}-of-{self.n}"

    def numbers(self, total: int) -> range:
        """Return the numbers (from 0) of its pieces among ``total``."""
        return range(self.i - 1, total, self.n)

    def rest(self, total: int) -> Iterator[int]:
        """Yield the numbers of the others' pieces, those of the part after it first."""
        for step in range(1, self.n):
            yield from Part((self.i - 1 + step) % self.n + 1, self.n).numbers(total)


def cut_list(items: Sequence[Item], size: int, number_of: Callable[[Item], int]) -> Iterator[Sequence[Item]]:
    """Cut a list into runs of ``size`` on average whose borders depend on the items beside them alone.

    A run ends after an item whose number is a multiple of ``size``, or when it is four times as long as the mean: an item
    put in or taken out changes its own run and, at most, those up to the next such item (content-defined chunking). Fixed
    lengths would move every later border.

    Args:
        items: in their order.
        size: mean length, >= 1.
        number_of: a well-mixed whole number of an item, always the same.
    """
    start = 0
    for end, item in enumerate(items, start=1):
        if number_of(item) % size == 0 or end - start == _LONGEST * size:
            yield items[start:end]
            start = end
    if start < len(items):
        yield items[start:]
