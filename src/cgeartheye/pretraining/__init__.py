"""Seasonal self-distillation: a student, its EMA teacher, three contrasts."""

from cgeartheye.pretraining.stage import pretrain

__all__ = ["pretrain"]
