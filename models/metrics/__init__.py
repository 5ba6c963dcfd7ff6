"""Measures of images and texts, and the statistics behind the quality gate."""
