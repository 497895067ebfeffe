"""Ray for the tests: three nodes on this machine, quiet, in a folder of their own; fixtures for a conftest to name."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do in future, and it warns until told
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "4",
}


@pytest.fixture(scope="module")
def ray_settings() -> Iterator[dict[str, str]]:
    """The environment of every Ray process, for this module's tests.

    Ray's files go to a folder of their own, so that nobody who says `ray.init()` meets this cluster by accident; it is
    not below `tmp_path` because paths of sockets must be short.
    """
    folder = tempfile.mkdtemp(prefix="lcray-")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**SETTINGS, "RAY_TMPDIR": folder}.items():
            patch.setenv(key, value)
        # Workers unpickle what tests define by reference to the kit.
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield {**SETTINGS, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(ray_settings: dict[str, str]) -> Iterator[Any]:
    """Three nodes of one CPU each, and this process connected to them."""
    import ray
    from ray.cluster_utils import Cluster

    quiet: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=quiet)
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()  # type: ignore[no-untyped-call]
