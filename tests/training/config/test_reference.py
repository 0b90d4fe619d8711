"""The reference of all keys: complete in --help and in the tables, which are brought up to date in pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import reference
from training.config.objectives import OBJECTIVES
from training.config.schema import CONFIGS, Task, schema
from training.config.sections import sections


@pytest.mark.parametrize("task", ["vision", "text"])
def test_help_and_tables_hold_every_key_with_its_default_and_values(task: Task) -> None:
    shown, table = reference.help_text(task), reference.markdown(task)
    for key in [key for section in sections(task) for key in section.keys]:
        assert f"\n  {key}=" in shown
        assert f"| `{key}` |" in table
    for key in schema(task).model_fields.keys() - {OBJECTIVES}:
        about = schema(task).model_fields[key].description or ""
        assert " ".join(about.split()).replace("|", "\\|") in table
    assert max(map(len, shown.splitlines())) <= reference.WIDTH
    assert "another value" not in shown
    for title in ("training:", "devices:", "data:", "objective al:"):
        assert f"\n{title}\n" in shown


def test_a_table_shows_default_values_and_meaning() -> None:
    table = reference.markdown("vision")
    assert "| `epochs` | `20` | a whole number of at least 1 | Passes over the training samples in one turn. |" in table
    assert "**Models `vgg`, `resnet`**" in table
    assert "| `temperature` | `0.5` |" in reference.markdown("text")


def test_pages_are_brought_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "configuration.md"
    page.write_text("# Keys\n\n<!-- table: config text -->\nstale\n<!-- end -->\n\nmore\n")
    assert reference.main(["--check", str(page)]) == 1
    assert "stale" in page.read_text()
    assert reference.main([str(page)]) == 0
    text = page.read_text()
    assert "| `x_hid` |" in text
    assert "stale" not in text
    assert text.startswith("# Keys\n\n<!-- table: config text -->\n")
    assert text.endswith("<!-- end -->\n\nmore\n")
    assert reference.main(["--check", str(page)]) == 0
    assert capsys.readouterr().out == f"out of date: {page}\nwritten: {page}\n"


@pytest.mark.parametrize("task", ["vision", "text"])
def test_the_shipped_files_are_brought_up_to_date(task: Task, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / CONFIGS[task]
    assert reference.main(["--check", str(shipped)]) == 0
    stale = tmp_path / shipped.name
    stale.write_text('{"epochs": 3}')
    assert reference.main(["--check", str(stale)]) == 1
    assert reference.main([str(stale)]) == 0
    assert stale.read_bytes() == shipped.read_bytes()


def test_without_a_page_it_prints_both_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 0
    shown = capsys.readouterr().out
    assert "## vision" in shown
    assert "## text" in shown
