"""A provider with real embeddings in a process of its own, for benchmarks of audits."""
