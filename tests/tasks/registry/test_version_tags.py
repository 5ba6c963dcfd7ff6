"""Tags of a registered version: what versions of this project before wrote is read, too."""

import json
from types import SimpleNamespace

import pytest

from tasks.registry.version_tags import references_tag


@pytest.mark.parametrize("prefix", ["real_data", "floor"])
def test_what_real_data_score_is_read_by_its_name_of_today_or_of_before(prefix: str) -> None:
    metrics = {"test_frechet_distance": 0.5, f"{prefix}_frechet_distance": 0.1, f"{prefix}_x": 1.0}
    tags = {"main_metric": "test_frechet_distance", "metrics": json.dumps(metrics)}
    version = SimpleNamespace(name="digits-gan", version="1", tags=tags)

    assert references_tag(version) == {"real_data_frechet_distance": 0.1}
