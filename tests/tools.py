"""Programs that nobody here wrote, and that some tests need."""

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Without them there is nothing to test; continuous integration has them, so there it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
