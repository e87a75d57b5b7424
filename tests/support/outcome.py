"""What the fixtures may know about the test they serve."""

import pytest

FAILED = pytest.StashKey[bool]()
"""Set on a test that failed, for fixtures that then keep what explains it."""
