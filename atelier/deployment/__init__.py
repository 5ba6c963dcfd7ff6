"""What runs by itself: `prefect.yaml` checked, and the Prefect server made to agree with it."""
