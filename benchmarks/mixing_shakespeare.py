"""Tiny Shakespeare, characters, nanoGPT's split: a mixture of counts, by two protocols.

Static: what was learned of the first 90 % scores the rest, and nothing is learned of it; like the
n-gram model, and unlike a window of 256 characters, a prediction may look back as far as it likes.
Online: each character is scored, then learned. The rates were chosen by `--choose`, on the end of
the training part; the rest of the text is scored once by each protocol.

    python -m benchmarks.mixing_shakespeare [--choose]
"""

import argparse
import time

from benchmarks.context_mixing import ContextMixing, Rates
from benchmarks.measured import record
from benchmarks.shakespeare import text

ONLINE = Rates(mixing=0.0015, kept=10)
STATIC = Rates(mixing=0.0007, refining=0.01, kept=60)
BLOCK = 15_000
"""Characters whose counts are unknown to the weights that learn from them."""
NUM_CHOSEN_ON = 111_540
"""At the end of the training part; as many as the test part has."""


def main() -> None:
    """Measure, and put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--choose", action="store_true", help="judge on the training part's end")
    whole, chooses = text(), parser.parse_args().choose
    alphabet, cut = "".join(sorted(set(whole))), int(0.9 * len(whole))
    train, rest = whole[:cut], whole[cut:]
    if chooses:
        train, rest = train[:-NUM_CHOSEN_ON], train[-NUM_CHOSEN_ON:]
    _compile(alphabet)
    static, static_seconds = _static(alphabet, train, rest)
    online, seconds, learning_seconds = _online(alphabet, train, rest)
    print(f"static {static:.4f} nats a character, learned in {static_seconds:.1f} s")
    print(f"online {online:.4f}, {seconds:.1f} s, after {learning_seconds:.1f} s of learning")
    if chooses:
        return
    record(
        "mixture_char_static_nats",
        static,
        "nats/char",
        seconds=static_seconds,
        reference="best published GPT of any kind (protocol A: windows)",
        reference_value=1.4603,
    )
    record(
        "mixture_char_online_nats",
        online,
        "nats/char",
        seconds=seconds,
        reference="zpaq 7.15 with a mixer and word contexts, measured by archive sizes",
        reference_value=1.2929,
    )


def _static(alphabet: str, train: str, rest: str) -> tuple[float, float]:
    """Nats a character, and seconds of learning."""
    began, model = time.monotonic(), ContextMixing(alphabet, STATIC)
    model.learn_apart(train, BLOCK)
    seconds = time.monotonic() - began
    return float(model.score(rest).mean()), seconds


def _online(alphabet: str, train: str, rest: str) -> tuple[float, float, float]:
    """Nats a character, seconds of scoring and learning the rest, and of learning before it."""
    began, model = time.monotonic(), ContextMixing(alphabet, ONLINE)
    model.learn(train)
    learned = time.monotonic()
    nats = float(model.learn(rest).mean())
    return nats, time.monotonic() - learned, learned - began


def _compile(alphabet: str) -> None:
    """So that compilation is in no measured time."""
    model = ContextMixing(alphabet)
    model.learn_apart(alphabet, len(alphabet) // 2)
    model.learn(alphabet)
    model.score(alphabet)


if __name__ == "__main__":
    main()
