"""How many intra-op threads a worker gets."""

from __future__ import annotations

import pytest

from ALPackage.stage.threads import available_cores
from training.config.schema import VisionConfig
from training.errors import ConfigError
from training.runs.threads import count_threads


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert count_threads(VisionConfig(threads=3), "bp") == available_cores()
    assert count_threads(VisionConfig(), "al") == 1
    assert count_threads(VisionConfig(workers=1), "al") == 1
    assert count_threads(VisionConfig(threads=3), "al") == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert count_threads(VisionConfig(threads=3), "al") == 2
    assert count_threads(VisionConfig(), "bp") == 2
    for wrong in ("0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", wrong)
        with pytest.raises(ConfigError, match=f'OMP_NUM_THREADS: got "{wrong}"'):
            count_threads(VisionConfig(), "al")
