"""Batched features, sliding and streamed windows."""
