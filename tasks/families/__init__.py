"""One record for each family of models, and the table of all."""
