"""What a person can type: one module for each group of commands, with an `add` for the parser."""
