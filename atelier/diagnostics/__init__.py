"""Checks of an installation that look and never mend."""
