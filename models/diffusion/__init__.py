"""Diffusion: a network that learns the velocity by which noise becomes an image."""
