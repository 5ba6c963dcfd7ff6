"""How long other processes make work wait: what a busy machine adds to every time."""

import threading
import time
from statistics import median

SPIN_SECONDS = 0.02
SECONDS_BETWEEN = 0.5


class Contention:
    """Asks twice a second for a little processor time, and notes how long that took to come by.

    A step that takes twice as long while a server is away says nothing by itself where six other
    programs began at the same time: what it takes is compared with what a moment's work took.
    """

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        """(time since 1970, wall seconds for each second of processor time)"""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Contention":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            began, used = time.monotonic(), time.thread_time()
            while time.thread_time() - used < SPIN_SECONDS:
                pass
            self.samples.append((time.time(), (time.monotonic() - began) / SPIN_SECONDS))

    def growth(self, away: float, back: float) -> float:
        """How many times as long work took between two moments as besides, by the median."""
        during = [ratio for at, ratio in self.samples if away < at <= back]
        besides = [ratio for at, ratio in self.samples if at <= away or at > back]
        return median(during) / median(besides) if during and besides else 1.0
