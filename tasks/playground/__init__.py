"""Registered versions to play with: what a page asks of one, in a process that holds it."""
