"""The chips of a place fetched with one request and kept for as long as they are likely to be asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

SPAN_BYTES: Final = 64 * 2**20
"""Bytes of remote places that a process keeps: about 200 of four dates [ours]."""

Chips = tuple[memoryview, ...]


class Spans:
    """Places by number, fetched once by whichever thread asks first; others wait for it."""

    def __init__(self, fetch: Callable[[int], Chips]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[Chips]] = OrderedDict()
        self._bytes = 0

    def get(self, place: int) -> Chips:
        """Return the chips of a place; raises what fetching raises, and asks anew the next time."""
        with self._lock:
            coming = self._kept.get(place)
            mine = coming is None
            if coming is None:
                coming = self._kept[place] = Future()
            self._kept.move_to_end(place)
        if mine:
            self._fill(place, coming)
        return coming.result()

    def _fill(self, place: int, coming: Future[Chips]) -> None:
        try:
            chips = self._fetch(place)
        except BaseException as error:  # noqa: BLE001 - handed to every thread that waits, this one included
            with self._lock:
                self._kept.pop(place, None)
            coming.set_exception(error)
            return
        coming.set_result(chips)
        with self._lock:
            self._bytes += sum(map(len, chips))
            while self._bytes > SPAN_BYTES and (oldest := next(iter(self._kept.items())))[1].done():
                del self._kept[oldest[0]]
                self._bytes -= sum(map(len, oldest[1].result()))
