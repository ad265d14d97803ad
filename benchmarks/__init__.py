"""Ayni beside what else there is: one script per work, both in turn on the same machine (docs/benchmarks.md)."""
