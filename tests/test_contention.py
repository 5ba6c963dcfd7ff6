"""How busy the machine was: what the suite of faults divides its times by."""

import time

from faults.contention import SPIN_SECONDS, Contention


def test_growth_is_that_of_the_moments_between_against_all_others() -> None:
    contention = Contention()
    contention.samples = [(1.0, 1.0), (2.0, 1.2), (3.0, 4.0), (4.0, 6.0), (5.0, 5.0), (6.0, 0.8)]

    assert contention.growth(2.0, 5.0) == 5.0  # (4, 6, 5) against (1, 1.2, .8)
    assert contention.growth(6.0, 9.0) == 1.0  # nothing was seen between


def test_a_sample_is_the_wall_time_of_a_little_work() -> None:
    with Contention() as contention:
        while not contention.samples:
            time.sleep(0.05)

    _, ratio = contention.samples[0]
    assert ratio >= 1.0
    assert ratio * SPIN_SECONDS < 60
