"""The record of the diffusion model."""

from tasks.families.family import Family

DIFFUSION = Family(
    name="diffusion",
    title="diffusion",
    data="images",
    purpose="A diffusion model: a network that learns the velocity from noise to images.",
    limits="Draws only what resembles its training images, with less variance than they have. A"
    " sample takes 38 passes through the network, so it draws more slowly than the others.",
    recipe="models.diffusion.recipe:diffusion_recipe",
    training="models.diffusion.training:DiffusionTraining",
    continued=("model.network", "model.average"),
    # Of distances to 10,000 samples, as the GAN's: benchmarks/gate_power.py.
    seed_spreads={"quick": (0.081, 19)},
    curves=("loss",),
    growth="the same noise as training went on",
    latents="models.diffusion.latents:DiffusionLatents",
)
