"""The record of the n-gram model."""

from tasks.families.family import Family

NGRAM = Family(
    name="ngram",
    title="n-gram",
    data="text",
    purpose="A next-token model by counting: interpolated modified Kneser-Ney.",
    limits="Knows only what follows the last few tokens: grammar holds for a line, sense does"
    " not. It quotes its training text where that text repeats itself.",
    recipe="models.ngram.recipe:ngram_recipe",
    training="models.ngram.training:NgramTraining",
    not_continued="its counts and their smoothing come from one text at a time: give both texts in"
    " one folder, and counting takes seconds",
    loader="load_counts",
    uses_gpu=False,
    seed_spreads={},  # counting knows no chance
    explains_tokens=True,
    gallery_extras=("tasks.samples.token_attribution:attributed_text",),
)
