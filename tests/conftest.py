"""Fixtures and hypothesis profiles shared by every test."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("few", parent=settings.get_profile("default"), max_examples=12)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=400, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images and golden numbers; tests that need it are skipped without it."""
    folder = os.environ.get("PSPC_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PSPC_TEST_DATA names no folder with the real data")
    return Path(folder)
