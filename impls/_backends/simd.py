"""What modules over native SIMD kernels share: the extension, the instruction sets, the cache sizes, the checks at bind."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .arrays import BFLOAT16, check

if TYPE_CHECKING:
    import numpy as np

    from ..registry import Implementation

NOT_BUILT = "built without the C++ kernels (ULPROOF_SIMD=OFF)"
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2}  # Element in the C++ sources
BFLOAT16_NUMBER = BFLOAT16.num


class Caches(NamedTuple):
    """Bytes of one core's second-level cache and of the last level."""

    l2: int
    last: int


@cache
def native(package: str) -> Any:
    """The extension ``_simd`` of a family, or why there is none."""
    try:
        return importlib.import_module("._simd", package)
    except ModuleNotFoundError:
        return NOT_BUILT
    except ImportError as error:
        return f"the C++ kernels can't be loaded: {error}"


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why the SIMD kernels can't run here, in words; ``None`` when they can."""
    module = native(implementation.operator.package)
    if isinstance(module, str):
        return module
    return None if module.isas() else "this CPU has none of the instruction sets that the kernels were compiled for"


@cache
def caches() -> Caches:
    """The cache sizes that the system shows for the first CPU; 1 MiB and 32 MiB where it shows none."""
    sizes: dict[int, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            size = (index / "size").read_text().strip()
            sizes[int((index / "level").read_text())] = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return Caches(sizes.get(2, 1 << 20), sizes[max(sizes)] if sizes else 32 << 20)


def prepare(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[np.ndarray, ...],
    outputs: tuple[np.ndarray, ...],
    isa: str | None,
    threads: int,
) -> tuple[Any, str, int]:
    """Check a bind's arguments; return the extension, the name of the instruction set and the element's number.

    Raises ``ValueError`` or ``TypeError`` naming the argument, what it was and what is allowed; writes nothing.
    """
    module = native(implementation.operator.package)
    if isinstance(module, str):
        raise RuntimeError(f"{implementation.full_name} can't run here: {module}")
    here = module.isas()
    if isa is None:
        isa = here[0]
    elif isa not in here:
        raise ValueError(f"isa is {isa!r}; this CPU and build have {', '.join(here)}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}; it must be an integer of at least 1 (there are {os.cpu_count()} CPUs)")
    _, dtype = check(implementation, pass_, inputs, outputs)
    card = implementation.operator.passes[pass_]
    for argument, array in zip(card.inputs + card.outputs, inputs + outputs, strict=True):
        if not array.flags.aligned:
            raise ValueError(f"{argument.name} is an unaligned view of memory; make a copy of it")
    return module, isa, ELEMENTS[dtype]
