"""Looking for better settings: what is tried, in which order, and what came of it."""
