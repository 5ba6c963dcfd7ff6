"""One module per family: data and a recipe in, weights on disk and curves in MLflow out."""
