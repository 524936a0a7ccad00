"""What `benchmarks.faults` is made of: processes, load, killer, and what must hold afterwards."""
