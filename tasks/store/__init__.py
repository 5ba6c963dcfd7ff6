"""Files, their digests, manifests, cache keys and the history of steps."""
