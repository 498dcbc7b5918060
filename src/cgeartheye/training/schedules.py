"""Schedules as functions of the share of the run that is done, in samples; so batch size may change on the way."""

from __future__ import annotations

import math


def cosine(start: float, end: float, share: float) -> float:
    """Go from ``start`` (share 0) to ``end`` (share 1 and beyond) along half a cosine."""
    done = min(max(share, 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def linear(start: float, end: float, share: float, *, over: float) -> float:
    """Go from ``start`` to ``end`` on a straight line over the first ``over`` of the run, then stay."""
    return end if share >= over else start + (end - start) * share / over


def warm_cosine(peak: float, end: float, share: float, *, warm_up: float) -> float:
    """Rise linearly from 0 to ``peak`` over the first ``warm_up`` of the run, then fall along half a cosine to ``end``."""
    if share < warm_up:
        return peak * share / warm_up
    return cosine(peak, end, (share - warm_up) / (1 - warm_up))
