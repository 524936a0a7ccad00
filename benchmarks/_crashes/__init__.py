"""Workers of a verifier node, killed at random while they audit: for `benchmarks.node_crashes`."""
