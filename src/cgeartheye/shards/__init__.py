"""Tar shards with a Parquet index: format, writer, reader, order of samples."""
