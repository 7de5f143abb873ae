"""Fixtures and hypothesis profiles shared by every test."""

import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HAS_TORCH = find_spec("torch") is not None

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("few", parent=settings.get_profile("default"), max_examples=12)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=400, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where torch is not installed, a test file that imports it is skipped and the report says so."""
    report = yield
    if report.failed and not HAS_TORCH and "No module named 'torch'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(getattr(collector, "path", collector.nodeid)), 1, "Skipped: torch is not installed")
    return report


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images and golden numbers; tests that need it are skipped without it."""
    folder = os.environ.get("PSPC_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PSPC_TEST_DATA names no folder with the real data")
    return Path(folder)
