"""The pages on which people play with registered versions."""
