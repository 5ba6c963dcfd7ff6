"""Versions, champions, the promotion policy and the audit log."""
