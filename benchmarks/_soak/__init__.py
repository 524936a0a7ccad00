"""A node under load for long, and how its memory does: for `benchmarks.soak`."""
