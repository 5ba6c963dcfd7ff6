from pathlib import Path

import pytest

from tasks.store.steps import changes, history, recorded, running, steps

PARTS = {
    "settings": {"fit": {"steps": 900}},
    "inputs": ["abc"],
    "code": {"models.vae.model": "1", "models.vae.elbo": "2"},
    "libraries": {"torch": "2.15"},
    "device": "cpu",
}


def test_a_step_is_made_unchanged_failed_or_killed(atelier_home: Path) -> None:
    with recorded("digits-vae", PARTS):
        assert [record.step for record in running()] == ["digits-vae"]
    with recorded("digits-vae", PARTS) as record:
        record.state = "unchanged"
    with pytest.raises(ValueError, match="bad"), recorded("digits-vae", PARTS):
        raise ValueError("bad\nand more")
    with pytest.raises(KeyboardInterrupt), recorded("digits-vae", PARTS):
        raise KeyboardInterrupt

    found = history("digits-vae")
    assert [record.state for record in found] == ["made", "unchanged", "failed", "killed"]
    assert found[2].reasons == ["ValueError: bad"]
    assert len({record.key for record in found}) == 1
    assert all(record.seconds is not None for record in found)
    assert steps() == ["digits-vae"]
    assert running() == []


def test_a_step_whose_process_died_is_killed(atelier_home: Path) -> None:
    with recorded("digits-vae", PARTS) as record:
        owner = record.owner
    (file,) = (atelier_home / "steps").iterdir()
    begun = file.read_text().splitlines()[0].replace(owner, owner.rsplit(":", 1)[0] + ":1")
    file.write_text(begun + '\n{"half a li')

    (left,) = history("digits-vae")
    assert left.state == "killed"
    assert left.seconds is None


def test_what_changed_is_told_part_by_part() -> None:
    after = {
        **PARTS,
        "settings": {"fit": {"steps": 1500}},
        "code": {"models.vae.model": "1b", "models.vae.latent_mixture": "3"},
        "device": "cuda",
    }

    assert changes(PARTS, after) == [
        "code.models.vae.elbo: removed",
        "code.models.vae.latent_mixture: added",
        "code.models.vae.model: edited",
        "device: cuda, was cpu",
        "settings.fit.steps: 1500, was 900",
    ]
    assert changes(PARTS, PARTS) == []
