"""The commands that print the figures: which parts they measure."""

from __future__ import annotations

import argparse

import pytest

from ulproof.benchmarks.headline import parse

PARTS = ("one", "two", "three")


def parts(*arguments: str) -> list[str]:
    given: list[str] = parse(argparse.ArgumentParser(), PARTS, list(arguments)).parts
    return given


def test_all_parts_unless_some_are_named() -> None:
    assert parts() == ["one", "two", "three"]
    assert parts("three", "one") == ["three", "one"]


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parts("four")
    assert error.value.code == 2
    assert "unknown part 'four'; there are one, two, three" in capsys.readouterr().err
