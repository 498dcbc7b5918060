"""What the log says when a run goes wrong: named alarms, each with a plain sentence (pure).

A collapse shows in one of two ways. With centring, all pictures go to one prototype. Sinkhorn-Knopp forbids that, so there
equal features give equal targets instead: entropy ln K, and a loss that stays at ln K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import quantiles
from typing import Any, Final, TypeGuard

Line = Mapping[str, Any]
"""One line of ``metrics.jsonl``: names to numbers, texts or None; None is a number that was not finite."""

PATIENCE: Final = 3
"""Log lines in a row that must show the fault [ours]: one may be chance, and three are soon written."""
LEAST_ENTROPY: Final = 0.05
"""Entropy of the targets over ln K below which they name a single prototype: at K = 65,536 it is 1.7 prototypes. Runs that
learned stay above 0.55 at K = 256 [measured, nano]."""
MOST_SHARE: Final = 0.15
"""Share of all targets on one prototype. Centring reached 0.21 on its way down, balanced targets 0.02 [measured, nano]."""
SHARE_OF_FEW: Final = 4.0
"""With few prototypes the share must also be this multiple of the even one, 1 / K [ours]."""
MOST_ENTROPY: Final = 0.98
"""Entropy over ln K above which targets say nothing. Too few large steps stay at 0.93 and still learn a little [measured,
nano]; an untrained head of 131,072 prototypes at temperature 0.07 begins at 0.977."""
LONG: Final = 10
"""Log lines in a row for what is normal at first: even targets, and a loss at ln K [ours]."""
FLOOR: Final = 0.005
"""Distance of the loss from ln K, relative, within which nothing is learned. Runs begin there and leave it within 120 steps,
during the warm-up [measured, nano]."""
WARM_UP_STEPS: Final = 5000
"""A longer warm-up no longer excuses a loss at ln K: a collapse is to be seen in minutes, not after days [ours]."""
LEAST_RANK: Final = 2.0
"""Effective rank of the class tokens below which they lie on a line [ours]; a collapsed network has 1."""
RANK_LOSS: Final = 0.65
"""Share of the best rank so far below which rank has collapsed. Without KoLeo that of the probe fell from 21 to 8 within 100
steps, that of a batch from 12 to 7; healthy runs kept 0.79 and more of their best [measured, nano]."""
DENSE_RISE: Final = 0.15
"""Rise of the similarity of patches within a picture above its least value so far. Training lowers it: 0.50 to 0.43 and 0.43
to 0.31 [measured, nano], so a rise by as much again is a decay [ours]."""
GRADIENT_FACTOR: Final = 10.0
"""Multiple of the gradient norm so far, its lower quartile. Healthy runs stay within 3 of it [measured, nano]."""
PROBE_FALL: Final = 0.05
"""Fall of a probe, two in a row, below the best that two in a row had, at least; healthy runs lost up
to 0.03 between two probes [measured, nano]."""
STANDARD_ERRORS: Final = 3.0
"""Standard errors of the probe's share that a fall must exceed too: few probe chips make large chance steps [ours]."""

PROBES: Final = {
    "probe_class": "nearest neighbours of the class token",
    "probe_patch": "nearest neighbours of the patches",
    "probe_class_linear": "a linear map of the class token",
    "probe_patch_linear": "a linear map of the patches",
    "probe_retrieval": "retrieval across dates",
}
"""Columns that an alarm watches, in words."""
COLUMN: Final = "alarm_"
"""Begin of the name of an alarm's column in the log."""


@dataclass(frozen=True)
class Alarm:
    """Something that is going wrong now."""

    name: str
    """As in the log, for example ``loss_floor``."""
    sentence: str
    """What is seen, what it means, what to try."""


def alarms(lines: Sequence[Line], *, classes_k: int) -> list[Alarm]:
    """Return what is wrong at the last line; nothing for a healthy run, and nothing that ended before.

    Args:
        lines: of ``metrics.jsonl`` from the first on, by step; absent columns raise no alarm.
        classes_k: prototypes K of the class-token head, >= 2.
    """
    checks: Mapping[str, Callable[[Sequence[Line], int], str | None]] = {
        "one_prototype": _one_prototype,
        "uniform_targets": _uniform_targets,
        "loss_floor": _loss_floor,
        "rank_collapse": _rank_collapse,
        "dense_decay": _dense_decay,
        "gradient_explosion": _gradient_explosion,
        "probe_falling": _probe_falling,
    }
    found = ((name, check(lines, classes_k)) for name, check in checks.items())
    return [Alarm(name, sentence) for name, sentence in found if sentence is not None]


def as_columns(found: Sequence[Alarm]) -> dict[str, str]:
    """Return alarms as columns of a log line, ``alarm_<name>`` with its sentence."""
    return {f"{COLUMN}{alarm.name}": alarm.sentence for alarm in found}


def _one_prototype(lines: Sequence[Line], k: int) -> str | None:
    remedy = "the targets collapse; take `loss.targets: sinkhorn`, a larger batch, fewer prototypes or more KoLeo"
    entropy = _newest(lines, "teacher_entropy", PATIENCE)
    if entropy and max(entropy) < LEAST_ENTROPY:
        return f"the entropy of the teacher's targets is {entropy[-1]:.3f} of ln K: each picture has one prototype; {remedy}"
    share = _newest(lines, "max_prototype_share", PATIENCE)
    if share and min(share) > max(MOST_SHARE, SHARE_OF_FEW / k):
        return f"one of {k} prototypes takes {share[-1]:.0%} of the targets; {remedy}"
    return None


def _uniform_targets(lines: Sequence[Line], k: int) -> str | None:
    entropy = _newest(_warm(lines), "teacher_entropy", LONG)
    if not entropy or min(entropy) < MOST_ENTROPY:
        return None
    return (
        f"the teacher's targets are spread evenly over all {k} prototypes (entropy {entropy[-1]:.3f} of ln K) and say nothing; "
        "take more and smaller steps, a lower teacher temperature or fewer prototypes"
    )


def _loss_floor(lines: Sequence[Line], k: int) -> str | None:
    floor = math.log(k)
    loss = _newest(_warm(lines), "loss_global", LONG)
    if not loss or max(abs(value - floor) for value in loss) > FLOOR * floor:
        return None
    return (
        f"the loss of the global views stays at ln K = {floor:.3f}, the loss of knowing nothing ({loss[-1]:.3f}); "
        "look at rank and entropy, lower the learning rate, or raise KoLeo"
    )


def _rank_collapse(lines: Sequence[Line], _k: int) -> str | None:
    for column, what, patience in (("rank", "of a batch", PATIENCE), ("probe_rank", "of the probe's chips", 1)):
        newest = _newest(lines, column, patience)
        if newest and max(newest) < LEAST_RANK:
            return f"the class tokens {what} are all alike (effective rank {newest[-1]:.1f}): the network has collapsed"
        earlier = _numbers(_same_phase(lines), column)[:-patience]
        if newest and earlier and max(newest) < RANK_LOSS * max(earlier):
            return (
                f"the effective rank of the class tokens {what} fell from {max(earlier):.1f} to {newest[-1]:.1f}: the features "
                "lose dimensions; raise `loss.koleo_weight` or lower the learning rate"
            )
    return None


def _dense_decay(lines: Sequence[Line], _k: int) -> str | None:
    values = _numbers(_same_phase(lines), "probe_patch_similarity")
    if len(values) < 3 or min(values[-2:]) - min(values[:-2]) < DENSE_RISE:
        return None
    return (
        f"patches of one picture become alike (mean cosine {values[-1]:.2f}, it was {min(values):.2f}): dense features decay; "
        "stop earlier, or take an earlier checkpoint for maps"
    )


def _gradient_explosion(lines: Sequence[Line], _k: int) -> str | None:
    trained = [line for line in lines if "grad_norm" in line]
    newest = [line["grad_norm"] for line in trained[-PATIENCE:]]
    if len(newest) == PATIENCE and not any(_finite(value) for value in newest):
        return f"the gradient has not been finite for {PATIENCE} log lines; lower the learning rate, or train in float32"
    earlier = [value for line in trained[:-PATIENCE] if _finite(value := line["grad_norm"])]
    if len(earlier) < PATIENCE or not all(_finite(value) for value in newest):
        return None
    usual = quantiles(earlier, n=4)[0]  # not the median, which a long explosion would move
    if min(newest) < GRADIENT_FACTOR * usual:
        return None
    return (
        f"the gradient norm is {newest[-1]:.3g}, {newest[-1] / usual:.0f} times the usual {usual:.3g}; lower the learning rate, "
        "or lengthen the warm-up"
    )


def _probe_falling(lines: Sequence[Line], _k: int) -> str | None:
    fallen = []
    for column, what in PROBES.items():
        values = _numbers(lines, column)
        if len(values) < 4:
            continue
        held = [min(pair) for pair in pairwise(values[:-2])]  # twice in a row: the best of many single ones is luck
        best, now = max(held), max(values[-2:])
        several = _numbers(lines, "probe_retrieval_places" if column == "probe_retrieval" else "probe_chips")
        error = math.sqrt(best * (1 - best) / max(several[-1], 1.0)) if several and 0 <= best <= 1 else 0.0
        if best - now > max(PROBE_FALL, STANDARD_ERRORS * error):
            fallen.append(f"{what} from {best:.1%} to {values[-1]:.1%}")
    if not fallen:
        return None
    return f"probes fall below their best: {', '.join(fallen)}; lower the learning rate, or take the best checkpoint"


def _warm(lines: Sequence[Line]) -> Sequence[Line]:
    """Return the lines after the learning rate's rise, or after so many steps that a rise is no excuse."""
    rates = [line.get("lr") for line in lines]
    for number, line in enumerate(lines):
        before, now = rates[number - 1] if number else None, rates[number]
        risen = _finite(before) and _finite(now) and now <= before
        if risen or line.get("step", 0) > WARM_UP_STEPS:
            return lines[number:]
    return [] if any(_finite(rate) for rate in rates) else lines


def _same_phase(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of the newest phase: another phase has other view sizes and batches, hence other ranks."""
    return [line for line in lines if line.get("phase") == lines[-1].get("phase")]


def _numbers(lines: Sequence[Line], column: str) -> list[float]:
    return [float(value) for line in lines if _finite(value := line.get(column))]


def _newest(lines: Sequence[Line], column: str, count: int) -> list[float]:
    """Return the last ``count`` numbers of a column, or none if there are fewer."""
    values = _numbers(lines, column)
    return values[-count:] if len(values) >= count else []


def _finite(value: Any) -> TypeGuard[float]:  # noqa: ANN401 - any value of a log
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
