"""The generative models and their numbers: pure PyTorch and NumPy."""
