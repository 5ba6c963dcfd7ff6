"""The record of the generative adversarial network."""

from tasks.families.family import Family, Option

GAN = Family(
    name="gan",
    title="GAN",
    data="images",
    purpose="A generative adversarial network: two networks in competition.",
    limits="Draws only what resembles its training images, and rare kinds less often than they"
    " occur. It gives no likelihood, so nothing says how probable an image is.",
    recipe="models.gan.recipe:gan_recipe",
    training="models.gan.training:GanTraining",
    continued=("generator", "average"),
    kept_beside=("discriminator",),
    options={
        "gan_loss": Option(
            setting="model.loss",
            choices=("relativistic", "hinge", "wasserstein"),
            text="relativistic with R1 and R2, hinge with spectral norm, or wasserstein (WGAN-GP).",
        )
    },
    # Of distances to 10,000 samples, which hold no luck of the draw. Real seeds scatter less evenly
    # than a normal distribution: benchmarks/gate_power.py.
    seed_spreads={"quick": (0.096, 19)},
    luck_level=0.86,
    curves=("generator_loss", "discriminator_loss"),
    growth="the same latent points as training went on",
    latents="models.gan.latents:GanLatents",
)
