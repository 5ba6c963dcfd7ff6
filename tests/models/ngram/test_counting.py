import errno
import os
import resource
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ngram import external_sort
from models.ngram.config import NgramConfig
from models.ngram.external_sort import ExternalSortConfig, SortedRuns, scratch_files
from models.ngram.keys import ByteKeys, IntegerKeys, keys_for
from models.ngram.model import NgramModel


@pytest.fixture
def small_blocks(monkeypatch):
    """Parts so small that every n-gram may lie across a border."""
    monkeypatch.setattr(external_sort, "MIN_BLOCK", 2)


def fitted(tokens, config, *, keys_at_once=None, spill=None):
    """A model that sorted only so many n-grams at once."""
    with pytest.MonkeyPatch.context() as patch:
        if keys_at_once is not None:
            patch.setattr("models.ngram.counting._keys_at_once", lambda *_: keys_at_once)
        return NgramModel.fit(tokens, max(int(tokens.max()) + 1, 4), config, spill)


def assert_equal(one, other):
    ours, theirs = one.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name


@contextmanager
def largest_file(num_bytes):
    """A disk with room for so much: what the system answers is an error like that of a full one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array),
    order=st.integers(1, 6),
    sentence_end=st.sampled_from([None, 0, 3]),
    keys_at_once=st.integers(1, 30),
    symbol_dtype=st.sampled_from([None, ">u1", ">u2", ">u4"]),
)
@settings(max_examples=80, deadline=None)
def test_counts_are_those_of_a_dictionary(tokens, order, sentence_end, keys_at_once, symbol_dtype):
    """Whatever is sorted at once, and whether keys are integers or strings of bytes."""
    config = NgramConfig(order=order, sentence_end=sentence_end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "MIN_BLOCK", 2)
        if symbol_dtype is not None:
            keys = ByteKeys(order, 5, np.dtype(symbol_dtype))
            patch.setattr("models.ngram.counting.keys_for", lambda *_: keys)
            patch.setattr("models.ngram.keys._fits", lambda _, length: length < 3)
        model = fitted(tokens, config, keys_at_once=keys_at_once)
    sentences, sentence = [], [0]
    for i, token in enumerate(tokens.tolist()):
        sentence.append(int(model.symbol_of[token]))
        if token == sentence_end and i < len(tokens) - 1:
            sentences.append(sentence)
            sentence = [0]
    sentences.append(sentence)
    longer = Counter()
    for k in range(order, 0, -1):
        grams = Counter(
            tuple(each[i : i + k]) for each in sentences for i in range(len(each) - k + 1)
        )
        left = Counter(gram[1:] for gram in longer)
        table = model.tables[k - 1]

        assert list(table.counts) == [grams[gram] for gram in sorted(grams)]
        assert list(table.num_left) == [left[gram] for gram in sorted(grams)]
        assert list(table.keys % model.num_symbols) == [gram[-1] for gram in sorted(grams)]
        longer = grams
    for below, table in pairwise(model.tables):
        parents = table.keys // model.num_symbols
        assert np.all(np.diff(table.keys) > 0)
        np.testing.assert_array_equal(
            np.bincount(parents, table.counts, minlength=len(below.keys)) <= below.counts, True
        )


def test_keys_are_integers_where_they_fit():
    assert isinstance(keys_for(66, 10), IntegerKeys)
    assert isinstance(keys_for(127, 9), IntegerKeys)
    assert isinstance(keys_for(128, 9), ByteKeys)  # 128 to the 9th is 2 to the 63rd
    assert keys_for(256, 9).dtype == "S9"
    assert keys_for(257, 9).dtype == "S18"
    assert keys_for(70_000, 5).dtype == "S20"


@pytest.mark.parametrize("keys", [keys_for(127, 9), keys_for(256, 9)])
def test_the_largest_keys_are_spelled_and_read(keys):
    symbols = np.array([126, 125, 126, 1, 126, 124, 126, 126, 124])
    spelled = keys.spell(np.append(symbols, [126] + [0] * 7))

    assert [int(keys.column(spelled, k)[0]) for k in range(9)] == symbols.tolist()
    assert keys.without_first(spelled, 9)[0] < keys.without_first(spelled, 9)[1]  # 125 < 126
    assert keys.without_first(spelled, 3)[4] == keys.without_first(spelled, 3)[7]  # 124 126


@given(
    parts=st.lists(st.lists(st.integers(-5, 5), max_size=20), max_size=9),
    keys_at_once=st.integers(1, 40),
    spilled=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_sorted_runs_count_like_numpy(parts, keys_at_once, spilled, tmp_path_factory):
    spill = ExternalSortConfig(folder=str(tmp_path_factory.getbasetemp())) if spilled else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "MIN_BLOCK", 1)
        with scratch_files(spill) as open_file:
            runs = SortedRuns(np.dtype(np.int64), keys_at_once, open_file, "quicksort")
            for part in parts:
                runs.add(np.array(part, np.int64))
            blocks = list(runs.blocks())
    whole = np.array([key for part in parts for key in part], np.int64)
    keys, counts = np.unique(whole, return_counts=True)

    assert [key for block, _ in blocks for key in block] == keys.tolist()
    assert [count for _, block in blocks for count in block] == counts.tolist()


@pytest.mark.parametrize("num_words", [40, 3000])
def test_a_spilled_model_is_the_same_and_leaves_no_file(tmp_path, num_words):
    random = np.random.default_rng(0)
    tokens = (random.zipf(1.3, 90_000) % num_words).astype(np.uint16)
    config = NgramConfig(order=6, sentence_end=2)
    spill = ExternalSortConfig(folder=str(tmp_path), memory_bytes=1 << 20)
    spilled, whole = fitted(tokens, config, spill=spill), fitted(tokens, config)
    probe = torch.from_numpy(tokens[:500].astype(np.int64))

    assert isinstance(spilled.tables[-1].keys.base, np.memmap)
    assert_equal(spilled, whole)
    assert torch.equal(spilled.score(probe), whole.score(probe))
    assert list(tmp_path.iterdir()) == []


def test_a_text_in_parts_counts_like_the_whole(small_blocks):
    tokens = np.random.default_rng(1).integers(0, 5, 700)
    for sentence_end in (None, 0):
        config = NgramConfig(order=5, sentence_end=sentence_end)
        whole = fitted(tokens, config)
        for keys_at_once in (1, 2, 3, 50, 699, 700):
            assert_equal(fitted(tokens, config, keys_at_once=keys_at_once), whole)


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path):
    tokens = np.random.default_rng(2).integers(0, 200, 100_000)
    spill = ExternalSortConfig(folder=str(tmp_path), memory_bytes=1 << 20)
    with largest_file(200_000), pytest.raises(OSError, match="free space there") as caught:
        NgramModel.fit(tokens, 200, NgramConfig(order=4), spill)

    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_scratch_folder_is_named(tmp_path):
    spill = ExternalSortConfig(folder=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NgramModel.fit(np.zeros(10_000_000, np.uint8), 2, NgramConfig(), spill)


def test_a_text_that_fits_the_memory_never_touches_the_disk(tmp_path):
    spill = ExternalSortConfig(folder=str(tmp_path / "nowhere"))
    model = NgramModel.fit(np.array([0, 1]), 2, NgramConfig(), spill)

    assert_equal(model, NgramModel.fit(np.array([0, 1]), 2))


def test_too_little_memory_is_refused():
    with pytest.raises(ValueError, match="at least 1048576, got 5"):
        ExternalSortConfig(folder=".", memory_bytes=5)


PROGRAM = """
import resource, sys
import numpy as np
from models.ngram.backoff import NgramConfig
from models.ngram.model import NgramModel
from models.ngram.external_sort import ExternalSortConfig

random = np.random.default_rng(0)
tokens = random.zipf(1.2, int(sys.argv[4])).astype(np.uint64) % 61
tokens = tokens.astype(np.uint8)
NgramModel.fit(tokens[:1000], 61)
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
place = ExternalSortConfig(folder=sys.argv[1], memory_bytes=8 << 20)
model = NgramModel.fit(
    tokens, 61, NgramConfig(order=8), place if sys.argv[3] == "spill" else None
)
print(sum(len(table.keys) for table in model.tables))
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit on a program's data")
def test_counting_keeps_within_the_stated_memory(tmp_path):
    """Where all in memory dies, a fraction suffices; and counting needs no torch."""

    def run(extra_bytes, how, num_tokens):
        arguments = [str(tmp_path), str(extra_bytes), how, str(num_tokens)]
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
        )

    whole = run(20 << 20, "whole", 800_000)
    capped = run(9 << 20, "spill", 800_000)
    one_run = run(9 << 20, "spill", 120_000)

    assert "MemoryError" in whole.stderr
    assert capped.returncode == 0, capped.stderr
    assert int(capped.stdout) > 1_500_000
    assert one_run.returncode == 0, one_run.stderr
