"""Images and texts: found, checked, split and stored."""
