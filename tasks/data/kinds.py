"""What is known of data by name: imports nothing, for whoever only tidies up reads no data."""

from typing import Literal

Scheme = Literal["characters", "bpe"]
"""How text becomes tokens; the names of steps that make them end in it."""
SHARDS = "shards"
"""The folder below `data/` of pictures that are being read for a data set."""
