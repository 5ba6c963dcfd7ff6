"""Raw images and text to data sets that models train on."""

from prefect import flow

from tasks.ingestion import ImageSet, ingest_images, ingest_text
from tasks.tokenization import Scheme, TokenSet, tokenize_corpus


@flow(name="prepare-images", flow_run_name="{source}")
def prepare_images(
    source: str = "digits", image_size: int | None = None, rehash: bool = False
) -> ImageSet:
    """Read, check, split and store an image set.

    Args:
        source: digits, mnist, fashion-mnist, cifar10, or folder:PATH (its sub-folders are classes).
        image_size: side in pixels to which your own images are cropped and resized.
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    return ingest_images(source, image_size, rehash)


@flow(name="prepare-corpus", flow_run_name="{source}, {scheme}")
def prepare_corpus(
    source: str = "pydocs",
    scheme: Scheme = "characters",
    vocabulary_size: int = 1024,
    glob: str | None = None,
    rehash: bool = False,
) -> TokenSet:
    """Read, check, split, store and tokenize a text.

    Args:
        source: pydocs, tinyshakespeare, file:PATH or folder:PATH.
        scheme: one token per character, or byte-level BPE.
        vocabulary_size: number of BPE tokens; characters ignore it.
        glob: which files of your own folder are read, such as *.py; none: all that hold text.
        rehash: read your own files again even if their names, sizes and times are unchanged.
    """
    corpus = ingest_text(source, glob, rehash)
    return tokenize_corpus(corpus, scheme, vocabulary_size)
