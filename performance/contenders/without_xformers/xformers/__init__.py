"""Stands for xformers, which the official DINOv2 code insists on, by what torch itself offers; found by that contender alone."""
