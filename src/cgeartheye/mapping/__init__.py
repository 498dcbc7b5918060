"""`map`: a task model over whole scenes, streamed and seamless."""

from cgeartheye.mapping.stage import map_scenes

__all__ = ["map_scenes"]
