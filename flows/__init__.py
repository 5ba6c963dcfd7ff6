"""Orchestration only: what happens, in which order."""
