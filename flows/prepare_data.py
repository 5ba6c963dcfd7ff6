"""Raw images and text to data sets that models train on."""

from prefect import flow

from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.kinds import Scheme
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.registry.data_owner import check_data


@flow(name="prepare-images", flow_run_name="{source}")
def prepare_images(
    source: str = "digits",
    image_size: int | None = None,
    rehash: bool = False,
    *,
    to_register: bool = True,
) -> ImageSet:
    """Read, check, split and store an image set.

    Args:
        source: a data set such as digits, folder:PATH (its sub-folders are classes), or
            NAME=folder:PATH.
        image_size: side in pixels to which your own images are cropped and resized.
        rehash: read your own files again even if their names, sizes and times are unchanged.
        to_register: refuse data whose name stands for other data in the registry.
    """
    images = ingest_images(source, image_size, rehash)
    if to_register:
        check_data(images)
    return images


@flow(name="prepare-corpus", flow_run_name="{source}, {scheme}")
def prepare_corpus(
    source: str = "pydocs",
    scheme: Scheme = "characters",
    vocabulary_size: int = 1024,
    glob: str | None = None,
    rehash: bool = False,
    *,
    to_register: bool = True,
    tokenizer_file: str | None = None,
) -> TokenSet:
    """Read, check, split, store and tokenize a text.

    Args:
        source: a data set such as pydocs, file:PATH or folder:PATH, or NAME=file:PATH.
        scheme: one token per character, or byte-level BPE.
        vocabulary_size: number of BPE tokens; characters ignore it.
        glob: which files of your own folder are read, such as *.py; none: all that hold text.
        rehash: read your own files again even if their names, sizes and times are unchanged.
        to_register: refuse data whose name stands for other data in the registry.
        tokenizer_file: of a version's vocabulary, which is taken instead of one of this text.
    """
    corpus = ingest_text(source, glob, rehash)
    if to_register:
        check_data(corpus)
    return tokenize_corpus(corpus, scheme, vocabulary_size, tokenizer_file)
