"""What several tests of hosts ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.endpoints import weight_file
from kit.ray_nodes import cluster as cluster
from kit.ray_nodes import ray_settings as ray_settings


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights, of a network that loads and answers at once."""
    return weight_file(tmp_path_factory.mktemp("weights"))
