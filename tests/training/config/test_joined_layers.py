"""Device lists for a network whose settings change the number of its layers, from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from training import experiment

pytestmark = pytest.mark.usefixtures("one_thread", "no_pictures")

SMALL = "docstrings lstm --set cut=joined --set embedding_dim=8 --set x_hid=4 --set epochs=1 --limit-train 40"


@pytest.mark.parametrize(("method", "layers"), [("al", 3), ("bp", 4)])
def test_a_list_as_long_as_the_network_trains_and_another_is_refused(
    method: str, layers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards a bug: the right list was refused, and the wrong one ended in a traceback."""
    for entries, code in ((layers, 0), (layers + 1, 2)):
        line = f"{SMALL} --method {method} --set {method}_gpu_list='{json.dumps(['cpu'] * entries)}' --out {tmp_path}"
        assert experiment.main("text", shlex.split(line)) == code
    said = capsys.readouterr().err
    assert said == (
        f"error: {method}_gpu_list has {layers + 1} entries, LSTM with {method.upper()} has {layers} layers; "
        f'give {layers}, or "auto"\n'
    )
    assert (tmp_path / f"docstrings_lstm_{method}.csv").exists()
