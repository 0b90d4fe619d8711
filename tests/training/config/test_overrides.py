"""`--set` as shells leave it: cmd.exe keeps single quotes, PowerShell takes double ones away, people add spaces."""

from __future__ import annotations

from typing import Any

import pytest

from training.config.arguments import configure, parse
from training.config.schema import CommonConfig
from training.errors import ConfigError

GPUS = ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def config(*overrides: str) -> CommonConfig:
    """Return the config of a command with these overrides."""
    sets = [part for override in overrides for part in ("--set", override)]
    return configure(parse("vision", ["digits", "vgg", "--method", "al", *sets]))


@pytest.mark.parametrize(
    "value",
    [
        '["cuda:0", "cuda:0", "cuda:1", "cuda:1"]',
        "[0, 0, 1, 1]",
        '[0, "0", "cuda:1", " cuda:1 "]',
        "0,0,1,1",
        "cuda:0,cuda:0,cuda:1,cuda:1",
        "cuda:0, cuda:0, cuda:1, cuda:1",
        "cuda:0 cuda:0 cuda:1 cuda:1",
        "[cuda:0,cuda:0,cuda:1,cuda:1]",
        "['cuda:0', 'cuda:0', 'cuda:1', 'cuda:1']",
        '\'["cuda:0","cuda:0","cuda:1","cuda:1"]\'',
        "(0,0,1,1)",
        "0,0,1,1,",
    ],
)
def test_a_device_list_in_any_notation(value: str) -> None:
    assert config(f"al_gpu_list={value}").al_gpu_list == GPUS
    assert config(f"al_gpu_list.vgg={value}").al_gpu_list == {"vgg": GPUS}


@pytest.mark.parametrize("value", ["cuda:0,cuda:1", '["cuda:0", "cuda:1"]', "0,1"])
def test_a_list_that_is_too_short_says_both_lengths(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(f"al_gpu_list={value}")
    assert str(caught.value) == 'al_gpu_list has 2 entries, VGG with AL has 4 layers; give 4, or "auto"'


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (" epochs = 3 ", {"epochs": 3}),
        ("epochs='3'", {"epochs": 3}),
        ("'epochs=3'", {"epochs": 3}),
        ("epochs=+3", {"epochs": 3}),
        ("epochs=03", {"epochs": 3}),
        ("base_lr=.001", {"base_lr": 0.001}),
        ("base_lr=1.", {"base_lr": 1.0}),
        ("base_lr=1e-4", {"base_lr": 1e-4}),
        ("outputpath=2028", {"outputpath": "2028"}),
        ("outputpath=1e5", {"outputpath": "1e5"}),
        ("outputpath=C:\\temp\\new", {"outputpath": "C:\\temp\\new"}),
        ('outputpath="a b"', {"outputpath": "a b"}),
        ("outputpath=a b", {"outputpath": "a b"}),
    ],
)
def test_a_value_means_what_was_typed(override: str, expected: dict[str, Any]) -> None:
    found = config(override)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3.0", "epochs: got 3.0; expected a whole number of at least 1: write 3"),
        ("epochs=1,seed=2", 'epochs: got "1,seed=2"; expected a whole number of at least 1; give every key a --set of'),
        ('epochs="3"', 'epochs: got "3"; expected a whole number of at least 1: write it without the quotation marks'),
        ("base_lr=0,001", 'base_lr: got "0,001"; expected a number above 0: write a point in place of the comma'),
        ("val_fraction=0,5", ": write a point in place of the comma"),
        ("compile=True", 'compile: got "True"; expected true or false: write true'),
        ("threads=None", "or null: write null"),
        ("al_gpu_list={vgg:auto}", 'where the shell has taken the quotation marks away, write \\" for each'),
        (r'outputpath="C:\temp"', r'outputpath: got "C:\temp", in which \t is one character; write / or \\ in a path'),
        ("al_gpu_list=cpu", 'al_gpu_list: got "cpu"; expected "auto", a list of devices'),
        ("epochs:3", "--set epochs:3: expected key=value, for example --set epochs=3"),
        (".x=3", "--set .x=3: expected key=value"),
    ],
)
def test_a_mistake_says_how_to_write_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(override)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"--set {override}: ")
