"""One file a claim: each prints one JSON line a result, with the limit that is claimed."""
