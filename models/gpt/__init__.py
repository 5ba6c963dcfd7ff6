"""The GPT: a decoder-only transformer from scratch."""
