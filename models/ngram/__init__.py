"""The n-gram model: the next token by counting."""
