"""Honest figures of frozen backbones, with intervals and plain baselines in the same table."""

from cgeartheye.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
