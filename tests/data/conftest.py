"""What the tests of more than one folder need."""

from __future__ import annotations

import pytest

from data import registry


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove, after the test, the data sets that it registered."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
