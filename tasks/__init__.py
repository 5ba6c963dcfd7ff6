"""Repeatable effects, one each: they read and write files, MLflow and Prefect artifacts."""
