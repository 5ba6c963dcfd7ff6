"""The record of the variational auto-encoder."""

from tasks.families.family import Family

VAE = Family(
    name="vae",
    title="VAE",
    data="images",
    purpose="A variational auto-encoder: images to points of a latent space, and back.",
    limits="Draws only what resembles its training images; fine strokes come out smooth. Its"
    " likelihood is a bound, so the true one is no worse.",
    recipe="models.vae.recipe:vae_recipe",
    training="models.vae.training:VaeTraining",
    continued=("model", "best"),
    likelihood="models.vae.evaluation:likelihood",
    draws_means=True,
    seed_spreads={"quick": (0.0026, 19)},
    curves=("reconstruction", "kl"),
    growth="held-out images, their reconstructions, and new images, as training went on",
    latents="models.vae.latents:VaeLatents",
    gallery_extras=("tasks.samples.latent_space:reconstructions_and_interpolations",),
)
