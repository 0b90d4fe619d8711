import pytest

from data.storage.clutter import is_clutter


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._cat.JPEG", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "a.png:Zone.Identifier", "a.txt~"],
)
def test_what_operating_systems_leave_is_no_data(name: str) -> None:
    assert is_clutter(name)


@pytest.mark.parametrize("name", ["cat.JPEG", "n01443537", "Desktop", "thumbs", "a~b.txt", "train.csv"])
def test_ordinary_names_are_data(name: str) -> None:
    assert not is_clutter(name)
