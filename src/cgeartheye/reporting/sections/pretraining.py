"""The pre-training section: curves of loss, teacher and probes, recipe and throughput."""

from __future__ import annotations

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import Block, Fact, Figure, Section, Table, attempt
from cgeartheye.reporting.figures.lines import MOST_SERIES, Axes, Series, line_chart
from cgeartheye.reporting.folders import Record, StageFolder, read_lines
from cgeartheye.reporting.learning import LINEAR, PARTS, AlarmSpan, Log, alarm_spans, probe_name, read_log, throughput
from cgeartheye.reporting.sections.record import flat
from cgeartheye.reporting.wording import NARROW, count, duration, listed, plain, significant

THROUGHPUT = {"pictures_per_s": "of wall time", "pictures_per_cpu_s": "of CPU time"}
KOLEO_WORDS = "Minus the mean log distance to the nearest other class token of a batch: lower is more evenly spread."

ACCURACY = Axes("step", "accuracy, %")
LINEAR_WORDS = "One linear map of fixed strength, fitted on each half of the probe's pictures and tested on the other."
RETRIEVAL_WORDS = (
    "Share of places whose first date, turned and cut at random, finds its own other date before those of all other places."
)
ANCHOR_WORDS = "How far the likeness of patches in a picture is from that of an earlier teacher; zero until it is anchored."
SIMILARITY_WORDS = "Mean cosine between different patches of one picture. If it rises late in a long run, dense features decay."
SHARE_WORDS = "Share of the teacher's targets on its most used prototype."
WAIT_WORDS = "Share of the time in which the device had nothing to do but wait for pictures."


def pretraining_section(pretrained: StageFolder) -> Section:
    """Return the section on how the backbone was trained."""
    lines = read_lines(pretrained.path / "metrics.jsonl")
    log, alarms = read_log(lines), alarm_spans(lines)
    figures: list[Block] = [
        attempt("Loss", lambda: _loss(log)),
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
        *_recorded(log),
        attempt("Throughput", lambda: _curve(log, "Throughput", THROUGHPUT, Axes("step", "samples a second", include=(0.0,)))),
        attempt(
            "Schedules",
            lambda: _curve(log, "Learning rate", {"lr": "learning rate"}, Axes("step", "learning rate", include=(0.0,))),
        ),
    ]
    tables: list[Block] = [_alarms(alarms)] if alarms else []
    content: dict[str, object] = {"figures": figures, "tables": [*tables, attempt("Recipe", lambda: _recipe(pretrained))]}
    facts = _facts(pretrained, log)
    return Section("pretraining", "Pre-training", "pretraining.html.j2", content, facts, _said(log, alarms))


def _said(log: Log, alarms: tuple[AlarmSpan, ...]) -> tuple[str, ...]:
    """Return what the run's own watch found."""
    ended = float(log.steps[-1]) if log.steps.size else 0.0
    standing = [alarm.name for alarm in alarms if alarm.last == ended]
    sentences = []
    if standing:
        sentences.append(f"The run ended with an alarm: {listed(standing)}.")
    elif alarms:
        sentences.append(f"Alarms were raised and ended again: {listed([alarm.name for alarm in alarms])}.")
    elif log.has("max_prototype_share"):  # a log from before the watch had alarms says nothing about them
        sentences.append("No alarm was raised.")
    if log.rolled_back:
        steps = listed([count(step) for step in log.rolled_back])
        sentences.append(f"The run went back to a checkpoint; the first steps recorded after that: {steps}.")
    return tuple(sentences)


def _alarms(alarms: tuple[AlarmSpan, ...]) -> Table:
    rows = tuple((a.name, count(a.first), count(a.last), count(a.lines), a.sentence) for a in alarms)
    return Table("Alarms", ("alarm", "first step", "last step", "log lines", "what it said last"), rows, frozenset({1, 2, 3}))


def _recorded(log: Log) -> list[Block]:
    """Return the figures that only newer logs have data for, or only some runs."""
    anchored = {"loss_gram": "anchor"} if log.used("loss_gram") else {}
    wanted = (
        ("Anchor of patches", anchored, Axes("step", "mean squared difference of cosines", include=(0.0,)), ANCHOR_WORDS),
        ("Linear probes", LINEAR, ACCURACY, LINEAR_WORDS),
        ("Same place, other date", {"probe_retrieval": "class token"}, Axes("step", "found first, %"), RETRIEVAL_WORDS),
        ("Similarity of patches", {"probe_patch_similarity": "within a picture"}, Axes("step", "mean cosine"), SIMILARITY_WORDS),
        ("Largest prototype", {"max_prototype_share": "share"}, Axes("step", "share of targets, %", include=(0.0,)), SHARE_WORDS),
        ("Gradient norm", {"grad_norm": "norm"}, Axes("step", "norm before clipping", events=log.rolled_back), ""),
        ("Waiting for data", {"data_wait_share": "share"}, Axes("step", "share of time, %", include=(0.0,)), WAIT_WORDS),
    )
    return [
        attempt(title, lambda t=title, n=names, a=axes, c=words: _curve(log, t, n, a, c))  # type: ignore[misc]  # bound at once
        for title, names, axes, words in wanted
        if any(log.has(name) for name in names)
    ]


def _loss(log: Log) -> Figure:
    words = "Dashed lines across: the run went back to a checkpoint." if log.rolled_back else ""
    return _curve(log, "Loss", {"loss": "total"}, Axes("step", "loss, nats", events=log.rolled_back), words)


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
    factor = 100.0 if axes.y.endswith("%") else 1.0
    series = [Series(words, log.steps, log.columns[name] * factor) for name, words in names.items() if log.has(name)]
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
