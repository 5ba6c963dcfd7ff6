"""A mixture of counts: decisions between characters, predicted from many contexts.

A character is a path in a binary tree. For each decision of the path every context, the last
characters or words, has two counts; what pairs of counts mean is learned, too. Units of one layer
mix the contexts' log-odds, each unit with weights for the situation at hand (how long a match is,
where in the tree, which character came last); a last unit mixes these, and tables refine what comes
out. All of it learns from each decision after that was scored. It is the design of the PAQ
compressors, as a probability model.

A decision's probabilities are p and 1 - p, so those of all characters sum to one.

References: Mahoney 2005, "Adaptive weighing of context models for lossless data compression"; Knoll
and de Freitas 2012, "A machine learning perspective on predictive coding with PAQ".
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

LONGEST = 8
"""The order of the longest context of characters; those of 0 and all others are there, too."""
NUM_CONTEXTS = LONGEST + 11
NUM_NODES = 64
"""Decisions of the tree, at most: an alphabet has at most one character more."""
SLOT_BITS = 22
LEVELS = np.array([sum(n >= k for k in (1, 2, 3, 4, 6, 9, 15, 26, 61)) for n in range(256)])
"""Counts as they are told apart."""
NUM_LEVELS = 10
NUM_STATES = NUM_LEVELS * NUM_LEVELS * 4
"""Levels of both counts, and the last two decisions."""
NUM_INPUTS = 3 * NUM_CONTEXTS + 3
NUM_UNITS = 6
CLIP = 12.0
NUM_STEPS = 32
"""Of the range from -CLIP to CLIP, in refining tables."""
SHORTEST_MATCH = 6
LONGEST_MATCH = 32
MAX_COUNT = 250

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WORD, _WORD_BEFORE, _SECOND_BEFORE, _LINE_START, _LINE_LENGTH, _SPEAKER, _LINE = range(7)
"""What is remembered of words and lines, as hashes; a speaker is a line that ends in a colon."""
_MATCHED_AT, _MATCH_LENGTH = 7, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """How fast the parts learn."""

    mixing: float = 0.001
    """Of the units' weights."""
    last: float = 0.0003
    """Of the last unit's weights."""
    refining: float = 0.02
    """Of the tables after it."""
    kept: int = 14
    """How much of a count above it one decision the other way leaves: half. 250 forgets nothing."""


class _Text(NamedTuple):
    symbols: NDArray[Any]
    nodes: NDArray[Any]
    bits: NDArray[Any]
    lengths: NDArray[Any]
    is_letter: NDArray[Any]
    lower: NDArray[Any]
    newline: int
    colon: int


class _Tables(NamedTuple):
    slots: NDArray[Any]
    """(contexts, 2^SLOT_BITS): check 16 bits, counts 2 x 8, probability 30, last two decisions."""
    maps: NDArray[Any]
    """(contexts, states x nodes): the probability that a pair of counts stands for."""
    map_counts: NDArray[Any]
    weights: NDArray[Any]
    """(units, situations, inputs)."""
    last_weights: NDArray[Any]
    """(longest context known, units)."""
    refining: NDArray[Any]
    """(2, contexts of one or two characters, steps)."""
    match_rates: NDArray[Any]
    """(lengths,): how often the character after a match of that length is the same again."""
    heads: NDArray[Any]
    """Where the last characters stood before."""
    memory: NDArray[Any]


class ContextMixing:
    """A distribution over the next character of one text, given all before it."""

    def __init__(self, alphabet: str, rates: Rates | None = None) -> None:
        """alphabet: the characters that there can be, 2 to 65 of code points below 256."""
        is_coded = all(ord(character) < 256 for character in alphabet)
        if not is_coded or not 2 <= len(set(alphabet)) == len(alphabet) <= NUM_NODES + 1:
            raise ValueError(
                "an alphabet has 2 to 65 different characters of code points below 256, got"
                f" {alphabet!r:.80}"
            )
        self.rates = rates or Rates()
        self.alphabet = alphabet
        self._index = {character: index for index, character in enumerate(alphabet)}
        self._tree = code_tree(alphabet)
        letters = sorted({character.lower() for character in alphabet})
        self._lower = np.array([letters.index(each.lower()) for each in alphabet])
        self._is_letter = np.array([each.isalpha() or each == "'" for each in alphabet])
        self._read = np.zeros(0, np.int64)
        self._tables = _new_tables()

    def learn(self, text: str) -> NDArray[Any]:
        """Nats of each character of a text that follows what was read, each learned once scored."""
        return self._run(text, learns_weights=True, learns_counts=True)

    def learn_apart(self, text: str, block_length: int) -> None:
        """Learn weights on blocks whose counts are not known yet, then each block's counts.

        So the weights are those for a text of which nothing was counted.
        """
        for start in range(0, len(text), block_length):
            block, before = text[start : start + block_length], self._read
            memory = self._tables.memory.copy()
            if len(before):
                self._run(block, learns_weights=True, learns_counts=False)
            self._read = before
            self._tables.memory[:] = memory
            self._run(block, learns_weights=False, learns_counts=True)

    def score(self, text: str) -> NDArray[Any]:
        """Nats of each character of a text that follows what was read; nothing is learned."""
        read, memory = self._read, self._tables.memory.copy()
        nats = self._run(text, learns_weights=False, learns_counts=False)
        self._read = read
        self._tables.memory[:] = memory
        return nats

    def forget_counts(self) -> None:
        """Begin a text anew with the weights that were learned."""
        self._read = np.zeros(0, np.int64)
        for each in (self._tables.slots, self._tables.heads, self._tables.memory):
            each[:] = 0

    def _run(self, text: str, *, learns_weights: bool, learns_counts: bool) -> NDArray[Any]:
        start = len(self._read)
        symbols = np.array([self._index[character] for character in text], np.int64)
        self._read = np.concatenate([self._read, symbols])
        newline, colon = (self._index.get(each, -1) for each in "\n:")
        told = _Text(self._read, *self._tree, self._is_letter, self._lower, newline, colon)
        rates = self.rates
        learned = rates.mixing, rates.last, rates.refining, rates.kept
        nats = np.zeros(len(text))
        learns = learns_weights, learns_counts
        _run(told, self._tables, start, learned, learns, nats)
        return nats


def code_tree(alphabet: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Each character's path: nodes (V, D), decisions (V, D), and the paths' lengths (V,).

    The bits of the code points, highest first, but those that all characters of a prefix share. So
    letters of one case, digits and punctuation part first, and what is learned is learned of all.
    """
    codes = [format(ord(character), "08b") for character in alphabet]
    numbers: dict[str, int] = {}
    paths = []
    for code in codes:
        path = []
        for depth in range(8):
            prefix = code[:depth]
            if len({each[depth] for each in codes if each.startswith(prefix)}) == 2:
                path.append((numbers.setdefault(prefix, len(numbers)), int(code[depth])))
        paths.append(path)
    lengths = np.array([len(path) for path in paths])
    steps = np.zeros((len(paths), lengths.max(), 2), np.int64)
    for index, path in enumerate(paths):
        steps[index, : len(path)] = path
    return steps[..., 0].copy(), steps[..., 1].copy(), lengths


def _new_tables() -> _Tables:
    zeros, ones = np.meshgrid(np.arange(NUM_LEVELS), np.arange(NUM_LEVELS), indexing="ij")
    guess = ((ones + 0.4) / (zeros + ones + 0.8)).repeat(4 * NUM_NODES)
    weights = np.zeros((NUM_UNITS, 4096, NUM_INPUTS))
    weights[:, :, : 2 * NUM_CONTEXTS] = 0.12
    log_odds = np.linspace(-CLIP, CLIP, NUM_STEPS + 1)
    return _Tables(
        slots=np.zeros((NUM_CONTEXTS, 1 << SLOT_BITS), np.uint64),
        maps=np.tile(guess, (NUM_CONTEXTS, 1)),
        map_counts=np.zeros((NUM_CONTEXTS, NUM_STATES * NUM_NODES)),
        weights=weights,
        last_weights=np.full((LONGEST + 1, NUM_UNITS), 1 / NUM_UNITS),
        refining=np.tile(1 / (1 + np.exp(-log_odds)), (2, 1 << 16, 1)),
        match_rates=np.full(16, 0.9),
        heads=np.zeros(1 << 20, np.int64),
        memory=np.zeros(9, np.uint64),
    )


_compiled = numba.njit(cache=True)


@_compiled
def _mixed(code: Any) -> Any:
    code ^= code >> np.uint64(29)
    code *= np.uint64(0xBF58476D1CE4E5B9)
    return code ^ (code >> np.uint64(32))


@_compiled
def _squash(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@_compiled
def _stretch(p: float) -> float:
    return math.log(p / (1.0 - p))


@_compiled
def _within(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


@_compiled
def _number_before(text: Any, position: int, distance: int) -> Any:
    """The character so far back, as a number above 0; 0 before the text."""
    return np.uint64(text.symbols[position - distance] + 1 if position >= distance else 0)


@_compiled
def _contexts(text: Any, position: int, memory: Any, found: Any) -> None:
    """The hash of each context at a position."""
    code = np.uint64(0)
    for order in range(LONGEST + 1):
        if order > 0:
            code = (code + _number_before(text, position, order)) * _FACTOR
        found[order] = _mixed(code + np.uint64(order) * np.uint64(977))
    one, two, three, four = (
        _number_before(text, position, 1),
        _number_before(text, position, 2),
        _number_before(text, position, 3),
        _number_before(text, position, 4),
    )
    word, before, second = memory[_WORD], memory[_WORD_BEFORE], memory[_SECOND_BEFORE]
    at = LONGEST + 1
    found[at] = word * _FACTOR
    found[at + 1] = (word + before * _FACTOR) * _FACTOR
    found[at + 2] = ((second * _FACTOR + before) * _FACTOR + word) * _FACTOR
    found[at + 3] = (two * _FACTOR + three) * _FACTOR
    found[at + 4] = ((two * _FACTOR + three) * _FACTOR + four) * _FACTOR
    found[at + 5] = (before * _FACTOR + one) * _FACTOR
    found[at + 6] = (word * _FACTOR + second) * _FACTOR
    found[at + 7] = (memory[_LINE_START] * _FACTOR + word) * _FACTOR
    found[at + 8] = ((before * _FACTOR + second) * _FACTOR + one) * _FACTOR
    found[at + 9] = (memory[_SPEAKER] * _FACTOR + word) * _FACTOR
    for index in range(at, NUM_CONTEXTS):
        found[index] = _mixed(found[index] + np.uint64(index + 2))


@_compiled
def _counts(entry: Any) -> tuple[int, int]:
    """The two counts of a slot: of decisions 0 and 1."""
    zeros = np.int64((entry >> np.uint64(40)) & np.uint64(255))
    return zeros, np.int64((entry >> np.uint64(32)) & np.uint64(255))


@_compiled
def _place(slots: Any, code: Any, claims: bool) -> tuple[int, bool]:
    """Where a context's counts of a decision are, and whether there are any.

    Two places are looked at; of strangers' the one with less in it is taken over.
    """
    place = np.int64(code & np.uint64((1 << SLOT_BITS) - 1))
    check = code >> np.uint64(48)
    for candidate in (place, place ^ 1):
        if slots[candidate] >> np.uint64(48) == check:
            zeros, ones = _counts(slots[candidate])
            return candidate, zeros + ones > 0
    if sum(_counts(slots[place ^ 1])) < sum(_counts(slots[place])):
        place ^= 1
    if claims:
        slots[place] = (check << np.uint64(48)) | np.uint64(1 << 31)
    return place, False


@_compiled
def _probability(entry: Any) -> float:
    return float(entry & np.uint64(0xFFFFFFFC)) / 4294967296.0


@_compiled
def _counted(entry: Any, bit: int, kept: int) -> Any:
    """A slot after one more decision."""
    zeros, ones = _counts(entry)
    p = _probability(entry)
    p += (bit - p) * max(1.0 / (zeros + ones + 1.6), 1.0 / 250)
    if bit:
        ones += 1
        zeros = (zeros + kept) // 2 if zeros > kept else zeros
    else:
        zeros += 1
        ones = (ones + kept) // 2 if ones > kept else ones
    if max(zeros, ones) > MAX_COUNT:
        zeros, ones = zeros // 2, ones // 2
    stored = np.uint64(_within(p, 1e-7, 1 - 1e-7) * 4294967296.0) & np.uint64(0xFFFFFFFC)
    latest = ((entry & np.uint64(1)) << np.uint64(1)) | np.uint64(bit)
    counts = (np.uint64(zeros) << np.uint64(40)) | (np.uint64(ones) << np.uint64(32))
    return (entry & np.uint64(0xFFFF000000000000)) | counts | stored | latest


@_compiled
def _remember(text: Any, position: int, memory: Any) -> None:
    """Take note of the words and lines that a character goes on with, or ends."""
    symbol = text.symbols[position]
    letter = np.uint64(text.lower[symbol] + 1)
    if text.is_letter[symbol]:
        memory[_WORD] = (memory[_WORD] + letter) * _FACTOR
    elif memory[_WORD] != 0:
        memory[_SECOND_BEFORE] = memory[_WORD_BEFORE]
        memory[_WORD_BEFORE] = memory[_WORD]
        memory[_WORD] = np.uint64(0)
    if symbol == text.newline:
        if position > 0 and text.symbols[position - 1] == text.colon:
            memory[_SPEAKER] = memory[_LINE]
        memory[_LINE] = memory[_LINE_START] = memory[_LINE_LENGTH] = np.uint64(0)
    else:
        memory[_LINE] = (memory[_LINE] + letter) * _FACTOR
        if memory[_LINE_LENGTH] < 3:
            memory[_LINE_START] = (memory[_LINE_START] + letter) * _FACTOR
            memory[_LINE_LENGTH] += np.uint64(1)


@_compiled
def _match(text: Any, position: int, tables: Any, known: int, counts: bool) -> None:
    """Look up where the text went on after what was just read, and how long that agreed.

    known: where the text ends that may be looked up while nothing is counted.
    """
    symbols, heads, memory = text.symbols, tables.heads, tables.memory
    at, length = np.int64(memory[_MATCHED_AT]), np.int64(memory[_MATCH_LENGTH])
    if length > 0 and symbols[at] == symbols[position]:
        at, length = at + 1, length + 1
    else:
        length = 0
    if position + 1 >= SHORTEST_MATCH:
        code = np.uint64(0)
        for distance in range(SHORTEST_MATCH):
            code = (code + np.uint64(symbols[position - distance] + 1)) * _FACTOR
        head = np.int64(_mixed(code) & np.uint64(len(heads) - 1))
        if length == 0 and heads[head] > 0:
            at = heads[head]
            length = _agreeing(symbols, at, position)
        if counts:
            heads[head] = position + 1
    if not counts and at >= known:
        length = 0
    memory[_MATCHED_AT], memory[_MATCH_LENGTH] = np.uint64(at), np.uint64(length)


@_compiled
def _agreeing(symbols: Any, at: int, position: int) -> int:
    """How many characters before a place are those up to a position; 0 where too few are."""
    length = 0
    while (
        length < LONGEST_MATCH
        and at > length
        and symbols[at - 1 - length] == symbols[position - length]
    ):
        length += 1
    return length if length >= SHORTEST_MATCH - 1 else 0


class _Decision(NamedTuple):
    """What is known of a decision while it is predicted; memory that all decisions share."""

    contexts: NDArray[Any]
    places: NDArray[Any]
    states: NDArray[Any]
    """Of each context's counts; -1 where there are none."""
    inputs: NDArray[Any]
    odds: NDArray[Any]
    told: NDArray[Any]
    situations: NDArray[Any]
    """Which weights each unit takes."""
    rows: NDArray[Any]
    """Of the refining tables."""
    now: NDArray[Any]
    """By the names below."""


_NODE, _ONE, _TWO, _KNOWN, _GUESS, _LENGTH, _STEP = range(7)
"""Place in the tree; last two characters; longest context that has counts; what the match says (-1:
nothing) and how long it is, in classes; the step of the refining tables."""


@_compiled
def _gather(tables: Any, decision: Any, claims: bool) -> None:
    """Find every context's counts, and put what they say into the inputs."""
    x, node, longest = decision.inputs, decision.now[_NODE], 0
    for index in range(NUM_CONTEXTS):
        code = _mixed(decision.contexts[index] + np.uint64(node + 1) * _FACTOR)
        place, is_known = _place(tables.slots[index], code, claims)
        decision.places[index], decision.states[index] = place, -1
        x[2 * index] = x[2 * index + 1] = x[2 * NUM_CONTEXTS + index] = 0.0
        if is_known:
            entry = tables.slots[index, place]
            zeros, ones = _counts(entry)
            state = (LEVELS[zeros] * NUM_LEVELS + LEVELS[ones]) * 4
            state = (state + np.int64(entry & np.uint64(3))) * NUM_NODES + node
            decision.states[index] = state
            p = tables.maps[index, state]
            x[2 * index] = _stretch(p)
            x[2 * index + 1] = _stretch(_within(_probability(entry), 0.0005, 0.9995))
            x[2 * NUM_CONTEXTS + index] = (p - 0.5) * 3.0
            if index <= LONGEST:
                longest = index
    decision.now[_KNOWN] = longest


@_compiled
def _follow(text: Any, tables: Any, decision: Any, depth: int) -> None:
    """Put into the inputs what the match says, if it agrees with the path so far."""
    x, now = decision.inputs, decision.now
    at, length = np.int64(tables.memory[_MATCHED_AT]), np.int64(tables.memory[_MATCH_LENGTH])
    now[_GUESS], now[_LENGTH] = -1, 0
    x[NUM_INPUTS - 3] = x[NUM_INPUTS - 2] = 0.0
    if length > 0:
        expected = text.symbols[at]
        if depth < text.lengths[expected] and text.nodes[expected, depth] == now[_NODE]:
            now[_GUESS] = text.bits[expected, depth]
            now[_LENGTH] = 1 + min(14, length if length < 8 else 8 + (length - 8) // 4)
            sign = 2.0 * now[_GUESS] - 1.0
            x[NUM_INPUTS - 3] = sign * _stretch(tables.match_rates[now[_LENGTH]])
            x[NUM_INPUTS - 2] = sign * min(length, LONGEST_MATCH) / 16.0


@_compiled
def _mix(tables: Any, decision: Any) -> float:
    """The log-odds of the decision 1, of the units together."""
    now, situations = decision.now, decision.situations
    situations[0], situations[1], situations[2] = now[_LENGTH], now[_NODE], now[_ONE]
    situations[3], situations[4] = now[_KNOWN] * 16 + now[_LENGTH], now[_TWO]
    situations[5] = now[_KNOWN] * NUM_NODES + now[_NODE]
    final = 0.0
    for unit in range(NUM_UNITS):
        total = 0.0
        for index in range(NUM_INPUTS):
            total += tables.weights[unit, situations[unit], index] * decision.inputs[index]
        decision.odds[unit] = _within(total, -CLIP, CLIP)
        decision.told[unit] = _squash(decision.odds[unit])
        final += tables.last_weights[now[_KNOWN], unit] * decision.odds[unit]
    return _within(final, -CLIP, CLIP)


@_compiled
def _refined(tables: Any, decision: Any, log_odds: float) -> float:
    """The probability after the mean with what the tables make of it."""
    now, rows = decision.now, decision.rows
    one, two, node = now[_ONE], now[_TWO], now[_NODE]
    rows[0] = one * NUM_NODES + node
    rows[1] = np.int64(_mixed(np.uint64((two * 128 + one) * NUM_NODES + node)) & np.uint64(0xFFFF))
    step = (log_odds + CLIP) / (2 * CLIP) * NUM_STEPS
    low = min(int(step), NUM_STEPS - 1)
    share, refined = step - low, _squash(log_odds) / 2
    for table in range(2):
        row = tables.refining[table, rows[table]]
        refined += (row[low] * (1 - share) + row[low + 1] * share) / 4
    now[_STEP] = low + 1 if share > 0.5 else low
    return _within(refined, 1e-6, 1 - 1e-6)


@_compiled
def _adjust(tables: Any, decision: Any, bit: int, log_odds: float, rates: Any) -> None:
    """Learn from a decision how to mix and refine, and what counts and matches mean."""
    mixing, last_rate, refining_rate, _ = rates
    now, states = decision.now, decision.states
    for table in range(2):
        row = tables.refining[table, decision.rows[table]]
        row[now[_STEP]] += (bit - row[now[_STEP]]) * refining_rate
    last_error = (bit - _squash(log_odds)) * last_rate
    for unit in range(NUM_UNITS):
        tables.last_weights[now[_KNOWN], unit] += last_error * decision.odds[unit]
        error = (bit - decision.told[unit]) * mixing
        situation = decision.situations[unit]
        for index in range(NUM_INPUTS):
            tables.weights[unit, situation, index] += error * decision.inputs[index]
    if now[_GUESS] >= 0:
        rate = tables.match_rates[now[_LENGTH]]
        rate += ((1.0 if now[_GUESS] == bit else 0.0) - rate) * 0.005
        tables.match_rates[now[_LENGTH]] = _within(rate, 0.002, 0.9998)
    for index in range(NUM_CONTEXTS):
        state = states[index]
        if state >= 0:
            seen, p = tables.map_counts[index, state], tables.maps[index, state]
            tables.maps[index, state] = _within(p + (bit - p) / (seen + 1.5), 0.0002, 0.9998)
            tables.map_counts[index, state] = min(seen + 1, 1000)


@_compiled
def _run(
    text: Any, tables: Any, start: int, rates: Any, learns: tuple[bool, bool], nats: Any
) -> None:
    """Score a text from a position on, and learn.

    learns: weights, and counts. Where only counts are learned nothing is mixed or scored.
    """
    learns_weights, learns_counts = learns
    mixes = learns_weights or not learns_counts
    decision = _Decision(
        np.zeros(NUM_CONTEXTS, np.uint64),
        np.zeros(NUM_CONTEXTS, np.int64),
        np.zeros(NUM_CONTEXTS, np.int64),
        np.zeros(NUM_INPUTS),
        np.zeros(NUM_UNITS),
        np.zeros(NUM_UNITS),
        np.zeros(NUM_UNITS, np.int64),
        np.zeros(2, np.int64),
        np.zeros(7, np.int64),
    )
    decision.inputs[NUM_INPUTS - 1] = 0.3
    for position in range(start, len(text.symbols)):
        symbol = text.symbols[position]
        _contexts(text, position, tables.memory, decision.contexts)
        decision.now[_ONE] = text.symbols[position - 1] if position >= 1 else 0
        decision.now[_TWO] = text.symbols[position - 2] if position >= 2 else 0
        for depth in range(text.lengths[symbol]):
            bit = text.bits[symbol, depth]
            decision.now[_NODE] = text.nodes[symbol, depth]
            _gather(tables, decision, learns_counts)
            if mixes:
                _follow(text, tables, decision, depth)
                log_odds = _mix(tables, decision)
                p = _refined(tables, decision, log_odds)
                nats[position - start] -= math.log(p if bit else 1 - p)
                if learns_weights:
                    _adjust(tables, decision, bit, log_odds, rates)
            if learns_counts:
                for index in range(NUM_CONTEXTS):
                    place = decision.places[index]
                    entry = tables.slots[index, place]
                    tables.slots[index, place] = _counted(entry, bit, rates[3])
        _remember(text, position, tables.memory)
        _match(text, position, tables, start, learns_counts)
