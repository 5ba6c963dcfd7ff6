"""The GAN: two networks in competition, and the control that keeps their training stable."""
