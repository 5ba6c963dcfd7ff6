"""MLflow: runs, metrics, and what happens while it is unreachable."""
