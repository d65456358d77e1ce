"""The package's registry, imported when it is first asked: ASV imports every module of this folder against any commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulproof.impls.registry import Implementation, Operator


def operators() -> Mapping[str, Operator]:
    from ulproof.impls import operators

    return operators()


def load(operator: str) -> Mapping[str, Implementation]:
    from ulproof.impls import load

    return load(operator)


def backends() -> tuple[str, ...]:
    from ulproof.impls.registry import BACKENDS

    return BACKENDS


def gpus() -> tuple[str, ...]:
    from ulproof.impls._backends.probe import gpus

    return gpus()
