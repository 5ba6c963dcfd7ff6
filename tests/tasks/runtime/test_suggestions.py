"""What was meant by a name that is not there."""

from tasks.runtime.suggestions import MAX_TOLD, did_you_mean, nearest


def test_the_nearest_name_is_found_and_none_where_none_is_near() -> None:
    assert nearest("digits-vea", ["digits-gan", "digits-vae"]) == "digits-vae"
    assert nearest("qqqq", ["digits-vae"]) == ""
    assert nearest("x" * 10_000, ["digits-vae"]) == ""


def test_a_refusal_ends_with_the_nearest_and_with_what_there_is() -> None:
    told = did_you_mean("digits-vea", ["digits-vae", "a"])
    assert told == " (did you mean digits-vae?); there are: a, digits-vae"
    assert did_you_mean("qqqq", ["b", "a"]) == "; there are: a, b"
    assert did_you_mean("qqqq", []) == "; there are: none"


def test_a_long_list_is_cut_off() -> None:
    told = did_you_mean("qqqq", [f"name-{n:03d}" for n in range(100)])

    assert told.endswith(f"name-{MAX_TOLD - 1:03d} and {100 - MAX_TOLD} more")
