"""What all token models share: tokenizers and the choice of the next token."""
