"""The curated data set on disk: tar shards, their index, and the order in which samples are drawn."""

from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ChipRecord, ShardReader
from cgeartheye.shards.sampler import sample_index
from cgeartheye.shards.writer import write_shards

__all__ = ["Chip", "ChipRecord", "Place", "ShardReader", "sample_index", "write_shards"]
