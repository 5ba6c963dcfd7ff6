"""What a registered version is made of, and whether it loads anywhere."""
