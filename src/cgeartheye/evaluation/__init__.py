"""Honest figures of frozen backbones, with intervals and plain baselines in the same table."""
