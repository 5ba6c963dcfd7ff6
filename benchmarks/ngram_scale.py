"""Counting n-grams of 10 to 300 MB of text, all in memory and within a stated memory.

The text: sources of the installed packages (`benchmarks.ngram_work.corpus`). Bytes are
tokens, the order is 7. Every figure is that of a whole process from a text file to a model file, as
in `benchmarks.ngram_shakespeare`; lmplz runs beside ours where KENLM_BIN names its folder, with the
same memory to sort in as ours has to count in. Scratch files, up to some GB, go to TMPDIR.

Peak memory is the resident set: it also counts the pages of the mapped text that are in memory,
which the system can drop at any time.

python -m benchmarks.ngram_scale tuned      the largest text alone, as a training counts it

A training tunes besides (`benchmarks.ngram_work.fit`), with PyTorch, whose libraries take more
memory than the counting: what is told is the peak beside what they hold before.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from benchmarks.measured import record
from benchmarks.ngram_work import corpus, kenlm
from benchmarks.ngram_work.process import EvaluationResult, measured

ORDER = 7
CAP_MB = 256
MEGABYTES = (10, 30, 100, 300)


def main(wanted: list[str]) -> None:
    """Measure and record all rows, or those of the tuned model alone."""
    if wanted != ["tuned"]:
        _all_counted()
    with tempfile.TemporaryDirectory() as folder:
        _tuned(MEGABYTES[-1], Path(folder))


def _tuned(megabytes: int, folder: Path) -> None:
    """Counting and tuning, as a training does both."""
    text = folder / "text"
    corpus.write_sources(text, megabytes * 10**6)
    command = [sys.executable, "-m", "benchmarks.ngram_work.fit", str(text), str(folder)]
    done = subprocess.run([*command, str(ORDER)], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    name = f"ngram_{megabytes}mb_tuned"
    record(f"{name}_seconds", found["seconds"], "s, counted twice, tuned and written")
    record(
        f"{name}_peak_rss_mb",
        found["beside_mb"],
        f"MB beside the libraries; with them {found['peak_mb']:.0f}",
        seconds=found["seconds"],
        reference="at most",
        reference_value=600,
    )


def _all_counted() -> None:
    runs: dict[int, dict[str, EvaluationResult]] = {}
    for megabytes in MEGABYTES:
        with tempfile.TemporaryDirectory() as folder:
            runs[megabytes] = _counted(megabytes, Path(folder))
    for how in runs[MEGABYTES[0]]:
        seconds = [f"{runs[size][how].seconds / size:.3f}" for size in MEGABYTES]
        peaks = [f"{runs[size][how].peak_mb:.0f}" for size in MEGABYTES]
        sizes = f"for {', '.join(map(str, MEGABYTES))} MB"
        print(f"{how}: {', '.join(seconds)} s/MB and at most {', '.join(peaks)} MB {sizes}")
    for megabytes in (10, 100, 300):
        _record(f"ngram_{megabytes}mb_seconds", runs[megabytes], "whole", "seconds", "s")
    for megabytes in (100, 300):
        name, found = f"ngram_{megabytes}mb", runs[megabytes]
        _record(f"{name}_peak_rss_mb", found, "whole", "peak_mb", "MB")
        _record(f"{name}_capped_seconds", found, "capped", "seconds", "s")
        _record(f"{name}_capped_peak_rss_mb", found, "capped", "peak_mb", "MB")


def _counted(megabytes: int, folder: Path) -> dict[str, EvaluationResult]:
    """Each way on one text, and whether both of ours came to the same."""
    text, spaced = folder / "text", folder / "spaced"
    digest = corpus.write_sources(text, megabytes * 10**6)
    print(f"{megabytes} MB of sources, SHA-256 {digest[:16]}", flush=True)
    train = [sys.executable, "-m", "benchmarks.ngram_work.train", str(text)]
    scratch = [str(folder), str(CAP_MB * 10**6)]
    commands = {
        "whole": [*train, f"{folder}/whole.npz", str(ORDER)],
        "capped": [*train, f"{folder}/capped.npz", str(ORDER), *scratch],
    }
    if (binaries := kenlm.binaries()) is not None:
        corpus.write_spaced(text, spaced)
        commands["lmplz"] = kenlm.lmplz(binaries, spaced, ORDER, f"{CAP_MB * 10**6}b")
    runs = {}
    for how, command in commands.items():
        runs[how] = measured(command)
        print(f"  {how}: {runs[how].seconds:.1f} s, peak {runs[how].peak_mb:.0f} MB", flush=True)
    sums = [
        [(entry.filename, entry.file_size, entry.CRC) for entry in ZipFile(path).infolist()]
        for path in (folder / "whole.npz", folder / "capped.npz")
    ]
    if sums[0] != sums[1]:
        sys.exit("the model that was counted within the cap is another one")
    return runs


def _record(name: str, runs: dict[str, EvaluationResult], how: str, what: str, unit: str) -> None:
    """A row beside what lmplz took, where it ran."""
    theirs = getattr(runs["lmplz"], what) if "lmplz" in runs else None
    reference = f"lmplz -S {CAP_MB} MB, same run" if "lmplz" in runs else "lmplz was not run"
    if how == "capped":
        reference = f"our cap: {CAP_MB} MB beside the interpreter; {reference}"
    record(
        name,
        getattr(runs[how], what),
        unit,
        seconds=runs[how].seconds,
        reference=reference,
        reference_value=theirs,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
