"""What holds for the tests of the commands."""

from __future__ import annotations

import pytest

from training.runs import shutdown as stopping


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no signal end the process of the tests, however slow the machine is."""
    monkeypatch.setattr(stopping, "LIMIT", 100.0)
