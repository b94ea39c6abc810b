"""Exports: the messages of an archive as Parquet, for tools that know nothing of Handrail (docs/archive.md)."""
