"""The VAE: an encoder down to a latent point z, a decoder back, and both losses."""
