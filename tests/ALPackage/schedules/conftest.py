"""What the tests of the schedules share."""

from __future__ import annotations

import pytest


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check of the layers on copies, for tests that count the calls of a layer."""
    monkeypatch.setattr("ALPackage.schedules.schedule.check_layers", lambda *_, **__: None)
