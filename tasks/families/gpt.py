"""The record of the GPT."""

from tasks.families.family import Family

GPT = Family(
    name="gpt",
    title="GPT",
    data="text",
    purpose="A GPT from scratch: a decoder-only transformer.",
    limits="A small model of one text: it writes in that text's manner, knows nothing else, and"
    " what it states is not to be believed.",
    recipe="models.gpt.recipe:gpt_recipe",
    training="models.gpt.training:GptTraining",
    continued=("model", "best"),
    seed_spreads={"quick": (0.0086, 19)},
    curves=("loss", "validation_nats_per_token"),
)
