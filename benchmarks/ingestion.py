"""Time and memory of reading a person's pictures and texts: many, large, and from memory maps.

python -m benchmarks.ingestion [jpegs] [photographs] [text] [training]

Each is a process of its own in a fresh home, and what is told of memory is the peak of the resident
sets of that process and all below it, added up; pages that they share count for each. The former
way, beside which pictures stand, is one process that holds all of them. Photographs are measured
with fewer than are promised: time grows with their number, memory does not. Some GB of files go to
TMPDIR; a file system with holes holds the sets that are trained on.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

from benchmarks.ngram_work import corpus

NUM_JPEGS, NUM_PHOTOGRAPHS, PROMISED_PHOTOGRAPHS = 60_000, 500, 100_000
PHOTOGRAPH = (4000, 3000)
MEGABYTES_OF_TEXT, GIGABYTES_OF_IMAGES = 300, 10
SECONDS_BETWEEN_LOOKS = 0.2
STEPS = 40
IMAGE_FAMILIES = ("vae", "gan", "diffusion")


def _record(*arguments: Any, **more: Any) -> None:
    from benchmarks.measured import record  # imports PyTorch, which no part is to be charged for

    record(*arguments, **more)


class Taken(NamedTuple):
    """What a part took."""

    seconds: float
    processor_seconds: float
    """Of all cores together: what a busy machine changes little."""
    peak_mb: float
    """Of all its processes together."""


def measured(*arguments: str) -> Taken:
    """Run one part in a process of its own."""
    began, peak, before = time.perf_counter(), 0, _processor_seconds()
    with tempfile.TemporaryDirectory() as home:
        process = psutil.Popen(
            [sys.executable, "-m", "benchmarks.ingestion", "--part", *arguments],
            env={**os.environ, "ATELIER_HOME": home},
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None:
            peak = max(peak, _resident(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"{' '.join(arguments)}: exit {process.returncode}")
    found = Taken(seconds, _processor_seconds() - before, peak / 1e6)
    print(
        f"  {' '.join(arguments)}: {found.seconds:.1f} s, {found.processor_seconds:.1f} s of"
        f" processors, peak {found.peak_mb:.0f} MB",
        flush=True,
    )
    return found


def _processor_seconds() -> float:
    """Of all processes that were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(process: psutil.Process) -> int:
    found = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            found += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return found


# What is measured -------------------------------------------------------------------------------


def jpegs() -> None:
    """60,000 small files."""
    with tempfile.TemporaryDirectory() as folder:
        _in_processes(partial(_small_jpegs, Path(folder)), NUM_JPEGS)
        former = measured("pictures", folder, "former")
        new = measured("pictures", folder, "new")
    beside = "one process that holds all, same run"
    what = f"for {NUM_JPEGS:,} JPEG files of 32x32"
    for name, unit, value, of_former in (
        ("seconds", f"s {what}, all told", new.seconds, former.seconds),
        (
            "processor_seconds",
            f"s of all cores {what}",
            new.processor_seconds,
            former.processor_seconds,
        ),
        ("peak_rss_mb", f"MB of all processes {what}", new.peak_mb, former.peak_mb),
    ):
        _record(f"ingestion_jpegs_{name}", value, unit, reference=beside, reference_value=of_former)


def photographs() -> None:
    """Some of 100,000 photographs of 12 megapixels."""
    with tempfile.TemporaryDirectory() as folder:
        _in_processes(partial(_photographs, Path(folder)), NUM_PHOTOGRAPHS)
        few = measured("photographs", folder, "few")
        new = measured("photographs", folder, "all")
    more = NUM_PHOTOGRAPHS - NUM_PHOTOGRAPHS // 5
    each = (new.processor_seconds - few.processor_seconds) / more
    _record(
        "ingestion_photographs_processor_hours",
        each * PROMISED_PHOTOGRAPHS / 3600,
        f"h of all cores for {PROMISED_PHOTOGRAPHS:,} photographs of 12 megapixels, from"
        f" {NUM_PHOTOGRAPHS}",
        seconds=new.seconds,
    )
    _record(
        "ingestion_photographs_peak_rss_mb",
        new.peak_mb,
        f"MB of all processes for {NUM_PHOTOGRAPHS} photographs of 12 megapixels",
        seconds=new.seconds,
        reference=f"for {NUM_PHOTOGRAPHS // 5} of them",
        reference_value=few.peak_mb,
    )


def text() -> None:
    """A text of 300 MB, read and tokenized by characters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        corpus.write_sources(path, MEGABYTES_OF_TEXT * 10**6)
        found = measured("text", str(path))
    unit = f"for {MEGABYTES_OF_TEXT} MB of text, read and tokenized by characters"
    _record("ingestion_text_processor_seconds", found.processor_seconds, f"s of all cores {unit}")
    _record("ingestion_text_peak_rss_mb", found.peak_mb, f"MB {unit}", seconds=found.seconds)


def training() -> None:
    """A few steps of each family on sets of 10 GB, of which memory holds a batch."""
    libraries = measured("nothing").peak_mb
    with tempfile.TemporaryDirectory() as folder:
        for family in (*IMAGE_FAMILIES, "gpt"):
            peak = measured("training", family, folder).peak_mb
            _record(
                f"training_{family}_10gb_peak_rss_mb",
                peak,
                f"MB for {STEPS} steps on {GIGABYTES_OF_IMAGES} GB",
                reference="a process that has imported the libraries alone",
                reference_value=libraries,
            )


# Files ------------------------------------------------------------------------------------------


def _in_processes(make: Callable[[range], None], number: int) -> None:
    at_once = max(1, number // 50)
    with ProcessPoolExecutor() as pool:
        list(
            pool.map(make, [range(i, min(i + at_once, number)) for i in range(0, number, at_once)])
        )


def _small_jpegs(folder: Path, numbers: range) -> None:
    for number in numbers:
        random = np.random.default_rng(number)
        pixels = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        path = folder / f"class-{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels.resize((32, 32)).save(path, quality=90)


def _photographs(folder: Path, numbers: range) -> None:
    """Smooth shapes with some noise, as a camera's pictures have."""
    for number in numbers:
        random = np.random.default_rng(number)
        width, height = PHOTOGRAPH
        shapes = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        noise = random.integers(-6, 7, (height, width, 1), dtype=np.int8)
        pixels = np.asarray(shapes.resize(PHOTOGRAPH)).astype(np.int16) + noise
        found = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        # A fifth lies apart, so that it can be read alone.
        path = folder / ("few" if number % 5 == 0 else "more") / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        found.save(path, quality=90)


# In the process that is measured ----------------------------------------------------------------


def _part(what: str, *arguments: str) -> None:
    if what == "pictures":
        from tasks.data import image_shards
        from tasks.data.ingestion import ingest_images

        folder, way = arguments
        if way == "former":
            image_shards.MANY_FILES = image_shards.MANY_BYTES = sys.maxsize
        ingest_images.fn(f"folder:{folder}")
    elif what == "photographs":
        from tasks.data.ingestion import ingest_images

        folder, how_many = arguments
        read = Path(folder) / "few" if how_many == "few" else Path(folder)
        ingest_images.fn(f"folder:{read}", image_size=64)
    elif what == "text":
        from tasks.data.ingestion import ingest_text
        from tasks.data.tokenization import tokenize_corpus

        tokenize_corpus.fn(ingest_text.fn(f"file:{arguments[0]}"))
    else:
        _train(*arguments)


def _train(family: str = "", folder: str = "") -> None:
    """Some updates on a set of holes, which reads as zeros; without a family the imports alone."""
    from pkgutil import resolve_name

    import torch

    from models.presets import ImageShape, TextShape
    from models.training.protocol import ImageData, TextData
    from tasks.families.table import FAMILIES

    if not family:
        for each in FAMILIES.values():
            resolve_name(each.training)
        return
    data: ImageData | TextData
    if family in IMAGE_FAMILIES:
        number = GIGABYTES_OF_IMAGES * 10**9 // (3 * 32 * 32)
        pixels = _holes(Path(folder) / "pixels.npy", np.uint8, (number, 3, 32, 32))
        labels = np.arange(number) % 10
        data = ImageData(
            train=pixels[1000:],
            train_labels=labels[1000:],
            validation=pixels[:1000],
            validation_labels=labels[:1000],
        )
        settings = resolve_name(FAMILIES[family].recipe)("quick", ImageShape(3, 32, 32, 10), 0)
    else:
        number = GIGABYTES_OF_IMAGES * 10**9 // 2
        tokens = _holes(Path(folder) / "tokens.npy", np.uint16, (number,))
        data = TextData(train=tokens[20_000:], validation=tokens[:20_000], vocabulary_size=300)
        shape = TextShape(scheme="characters", vocabulary_size=300, num_tokens=number)
        settings = resolve_name(FAMILIES[family].recipe)("quick", shape, 0)
    made = resolve_name(FAMILIES[family].training)(data, torch.device("cpu"), **settings)
    for step in made.steps():
        if step.step >= STEPS:
            break
    if family == "vae":  # it looks at the whole set once more at its end
        made.finish(folder)


def _holes(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", dtype, shape)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


PARTS = {"jpegs": jpegs, "photographs": photographs, "text": text, "training": training}


def main(wanted: list[str]) -> None:
    """Measure and record the wanted parts, by default all."""
    for name in wanted or PARTS:
        print(f"{name}:", flush=True)
        PARTS[name]()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        _part(*sys.argv[2:])
    else:
        main(sys.argv[1:])
