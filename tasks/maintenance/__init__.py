"""What is freed, pruned, and put right after crashes."""
