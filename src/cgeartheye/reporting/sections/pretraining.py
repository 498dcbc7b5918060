"""The pre-training section: curves of loss, teacher and probes, recipe and throughput."""

from __future__ import annotations

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import Fact, Figure, Section, Table, attempt
from cgeartheye.reporting.figures.lines import MOST_SERIES, Axes, Series, line_chart
from cgeartheye.reporting.folders import Record, StageFolder, read_lines
from cgeartheye.reporting.learning import PARTS, Log, probe_name, read_log, throughput
from cgeartheye.reporting.sections.record import flat
from cgeartheye.reporting.wording import NARROW, count, duration, listed, plain, significant

THROUGHPUT = {"pictures_per_s": "of wall time", "pictures_per_cpu_s": "of CPU time"}
KOLEO_WORDS = "Minus the mean log distance to the nearest other class token of a batch: lower is more evenly spread."


def pretraining_section(pretrained: StageFolder) -> Section:
    """Return the section on how the backbone was trained."""
    log = read_log(read_lines(pretrained.path / "metrics.jsonl"))
    figures = [
        attempt("Loss", lambda: _curve(log, "Loss", {"loss": "total"}, Axes("step", "loss, nats"))),
        attempt("Parts of the loss", lambda: _parts(log)),
        attempt("KoLeo", lambda: _curve(log, "KoLeo", {"koleo": "KoLeo"}, Axes("step", "KoLeo, nats"), KOLEO_WORDS)),
        attempt("Teacher entropy", lambda: _entropy(log)),
        attempt("Rank of the features", lambda: _rank(log)),
        attempt(
            "Prototypes in use",
            lambda: _curve(
                log, "Prototypes in use", {"prototypes_used": "prototypes"}, Axes("step", "prototypes", include=(0.0,))
            ),
        ),
        attempt("Probes during training", lambda: _probes(log)),
        attempt("Throughput", lambda: _curve(log, "Throughput", THROUGHPUT, Axes("step", "samples a second", include=(0.0,)))),
        attempt(
            "Schedules",
            lambda: _curve(log, "Learning rate", {"lr": "learning rate"}, Axes("step", "learning rate", include=(0.0,))),
        ),
    ]
    tables = [attempt("Recipe", lambda: _recipe(pretrained))]
    return Section(
        "pretraining", "Pre-training", "pretraining.html.j2", {"figures": figures, "tables": tables}, _facts(pretrained, log)
    )


def _facts(pretrained: StageFolder, log: Log) -> tuple[Fact, ...]:
    done = throughput(log)
    facts = [Fact(count(done.steps), "steps")]
    if done.samples is not None:
        facts.append(Fact(count(done.samples), "samples seen"))
    if done.seconds is not None:
        facts.append(Fact(duration(done.seconds), "wall time of the training loop"))
    if done.cpu_seconds is not None:
        facts.append(Fact(duration(done.cpu_seconds), "CPU time"))
    if done.samples_per_second is not None:
        facts.append(Fact(f"{significant(done.samples_per_second, 3)}/s", "samples per second of wall time"))
    return (*facts, *_shape(pretrained))


def _shape(pretrained: StageFolder) -> tuple[Fact, ...]:
    """Return the network's size as its card gives it."""
    try:
        card = read_json(pretrained.path / "backbone.json")
    except DataError:
        return ()
    config = card.get("config") if isinstance(card, dict) else None
    if not isinstance(config, dict) or not all(isinstance(config.get(k), int) for k in ("depth", "width", "patch_px")):
        return ()
    words = f"{config['depth']} \N{MULTIPLICATION SIGN} {config['width']}, patch {config['patch_px']}{NARROW}px"
    return (Fact(words, "blocks and width of the network"),)


def _parts(log: Log) -> Figure:
    used = {name: words for name, words in PARTS.items() if log.used(name)}
    silent = [words for name, words in PARTS.items() if log.has(name) and name not in used]
    caption = f"Never anything but zero, hence not drawn: {listed(silent)}." if silent else ""
    return _curve(log, "Parts of the loss", used, Axes("step", "unweighted part, nats"), caption)


def _curve(log: Log, title: str, names: dict[str, str], axes: Axes, caption: str = "") -> Figure:
    series = [Series(words, log.steps, log.columns[name]) for name, words in names.items() if log.has(name)]
    if not series:
        raise DataError(f"metrics.jsonl records no {' or '.join(names)}")
    return line_chart(title, series, axes, caption=caption)


def _entropy(log: Log) -> Figure:
    caption = (
        "Entropy of the teacher's assignments to prototypes. Falling to zero would mean that all pictures go to one prototype."
    )
    return _curve(
        log, "Teacher entropy", {"teacher_entropy": "entropy"}, Axes("step", "share of its maximum", include=(0.0, 1.0)), caption
    )


def _rank(log: Log) -> Figure:
    names = {"rank": "of a batch", "probe_rank": "of the probe's chips"}
    caption = "Effective rank of the class tokens: exp(entropy of the singular values). A collapsed network has rank 1."
    return _curve(log, "Rank of the features", names, Axes("step", "effective rank", include=(0.0,)), caption)


def _probes(log: Log) -> Figure:
    names = log.probes[:MOST_SERIES]
    shares = all((log.columns[n][log.columns[n] == log.columns[n]] <= 1).all() for n in names)
    factor = 100.0 if shares else 1.0
    series = [Series(probe_name(n), log.steps, log.columns[n] * factor) for n in names]
    if not series:
        raise DataError("metrics.jsonl records no probe")
    caption = "Leave-one-out nearest neighbours among some training chips: a watch on the teacher, not the evaluation."
    return line_chart("Probes during training", series, Axes("step", "accuracy, %" if shares else "score"), caption=caption)


def _recipe(pretrained: StageFolder) -> Table:
    settings: Record = pretrained.settings
    rows = tuple((key, plain(value)) for key, value in flat(settings))
    if not rows:
        raise DataError("the manifest holds no settings")
    return Table("Recipe", ("setting", "value"), rows, folded=True)


def headline(pretrained: StageFolder) -> tuple[Fact, ...]:
    """Return the facts of the page's head: the backbone's name, and how long it trained."""
    facts: list[Fact] = []
    name = next((pretrained.summary[k] for k in ("name", "backbone", "size") if isinstance(pretrained.summary.get(k), str)), None)
    name = name or next(
        (v for k, v in flat(pretrained.settings) if k.split(".")[-1] in {"size", "backbone"} and isinstance(v, str)), None
    )
    if name is not None:
        facts.append(Fact(str(name), "backbone"))
    return tuple(facts)
