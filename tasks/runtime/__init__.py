"""Processes, progress, retries, and messages for people."""
