"""Weights in and out, with the model card they travel with."""
