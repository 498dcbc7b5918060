"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared machines", deadline=None)  # a busy core is no fault of the code
settings.load_profile("shared machines")


@pytest.fixture(scope="session")
def imagery() -> Path:
    """The folder of real pictures; the test is skipped where CGEARTHEYE_IMAGERY does not point at one."""
    value = os.environ.get("CGEARTHEYE_IMAGERY")
    if not value or not Path(value).is_dir():
        pytest.skip("CGEARTHEYE_IMAGERY does not point at a folder of real imagery")
    return Path(value)
