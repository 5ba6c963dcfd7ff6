"""Settings by dotted names: what they mean, what a person sets, and what a run makes of it."""
