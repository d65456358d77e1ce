"""CUDA launchers of the softmax family; the kernels and their numerics are in ``kernel.cu``.

``warp-per-row``: 8 or 32 lanes of a warp hold a row in registers. ``block-per-row``: a block holds it in registers or shared
memory. ``cluster-per-row``: the blocks of a cluster hold it together, each in its shared memory; from sm_90 on. All three
read each element once. ``online``: many blocks each reduce a chunk to a (reference, sum) pair, one combines
them in a fixed order without atomics, and a second read writes the outputs; M. Milakov and N. Gimelshein, arXiv 1805.02867,
between blocks rather than elements.

Max 4 ULP in float32 and 0.51 ULP in float16 and bfloat16, for every input, in the units of the operator's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from .._backends import nvrtc, tensors
from .._backends.nvrtc import Launch
from ..registry import ITEMSIZE, Axes, Implementation

call = tensors.call

TYPES = {"float32": "Float32", "float16": "Float16", "bfloat16": "Bfloat16"}
OPERATORS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "LogSumExp"}
SHARED_LIMIT = {"sm_80": 163 << 10, "sm_87": 163 << 10, "sm_86": 99 << 10, "sm_89": 99 << 10, "sm_120": 99 << 10}
MOST_SHARED = 227 << 10  # of the other architectures, from sm_90 on
SCRATCH = 1 << 10  # what block_per_row's reductions need of it, and to spare

# (lanes, vectors a lane) of warp_per_row; a misaligned row of 1024 float32 spans 257 vectors, one of 1024 halves 129
WARP = {4: ((8, 1), (32, 1), (32, 2), (32, 4), (32, 8), (32, 9)), 2: ((8, 1), (32, 1), (32, 2), (32, 4), (32, 5))}
# (threads, vectors a thread, blocks a multiprocessor must take) of block_per_row by pass, then those in shared memory
BLOCK = {
    "forward": ((128, 2, 8), (128, 4, 8), (128, 8, 5), (256, 8, 2)),
    "backward": ((128, 2, 8), (128, 4, 6), (256, 4, 3)),
}
IN_SHARED = ((512, 0, 2), (1024, 0, 1))
CLUSTER = (512, (2, 4, 8))  # threads of cluster_per_row, and blocks: the fewest that leave room for another cluster, or 8
ONLINE = {"forward": (256, 8), "backward": (256, 4)}  # threads, vectors a thread


@cache
def source() -> str:
    return nvrtc.common() + files(__package__).joinpath("kernel.cu").read_text()


def unavailable(implementation: Implementation, target: str) -> str | None:
    """Why CUDA kernels can't run on ``target``, in words. Imports neither torch nor cuda.core unless they are there."""
    if reason := nvrtc.unavailable(target):
        return reason
    arch = nvrtc.architecture(target)
    return (
        f"clusters need sm_90, {target} is {arch}"
        if implementation.variant == "cluster-per-row" and not _clusters(arch)
        else None
    )


def bind(
    implementation: Implementation,
    pass_: str,
    inputs: tuple[Any, ...],
    outputs: tuple[Any, ...],
    *,
    target: str,
    isa: str | None,
    threads: int,
    params: Mapping[str, Any],
) -> Callable[[], None]:
    """Check the arrays, compile and plan the launches; see ``registry``. ``isa``, ``threads``, ``params`` are not used.

    Arrays are torch tensors on ``target``, (..., n) with any strides, float32, float16 or bfloat16. Raises ``TypeError`` or
    ``ValueError`` naming the argument, and ``ValueError`` for rows that this GPU's shared memory can't hold.
    """
    axes, dtype, memory = tensors.check(implementation, pass_, inputs, outputs, target)
    if not axes["rows"]:
        return lambda: None
    launches = plan(implementation, pass_, axes, dtype, _head(memory[0], dtype), nvrtc.architecture(target))
    rows, n = axes["rows"], axes["n"]
    chunks = _chunks(implementation, pass_, n, dtype)
    import torch

    size = rows * (4 * chunks + 8) if implementation.variant == "online" else 0
    work = torch.empty(size, dtype=torch.float32, device=target)
    run = nvrtc.launcher(
        source(), launches, [*_pointers(implementation, pass_, memory), work.data_ptr(), rows, n, chunks], target
    )

    def launch(kept: Any = (memory, work)) -> None:  # the kernels hold bare addresses
        run()

    return launch


def compiled(
    implementation: Implementation, pass_: str, dtype: str, arch: str, axes: Axes | None = None
) -> list[dict[str, Any]]:
    """Compile a pass for ``sm_80``, ``sm_90`` or ``sm_100`` without a GPU: what ``axes`` need, or every kernel there is.

    Returns a dict for each kernel: kernel, arch, dtype, registers, shared_bytes (static and dynamic, a block), spills (bytes
    a thread), compile_seconds (its share of the program's). Raises ``ValueError`` for what the implementation doesn't take.
    """
    if axes:
        if reason := implementation.refuses(pass_, axes, dtype):
            raise ValueError(f"{implementation.full_name}: {reason}")
        launches = plan(implementation, pass_, axes, dtype, 0, arch)
    else:
        launches = every(implementation, pass_, dtype, arch)
    found = nvrtc.compile(source(), tuple(dict.fromkeys(launch.kernel for launch in launches)), arch)
    return [
        {
            "kernel": launch.kernel,
            "arch": arch,
            "dtype": dtype,
            **found.usage[launch.kernel],
            "shared_bytes": found.usage[launch.kernel]["shared_bytes"] + launch.shared,
            "compile_seconds": found.seconds / len(found.symbols),
        }
        for launch in launches
    ]


def plan(implementation: Implementation, pass_: str, axes: Axes, dtype: str, head: int | None, arch: str) -> tuple[Launch, ...]:
    """The launches of a pass over non-empty arrays. ``head`` elements stand between a 16-byte boundary and each row's start;
    ``None`` when rows differ in that."""
    rows, n = axes["rows"], axes["n"]
    lanes = 16 // ITEMSIZE[dtype]
    vectors = -(-(n + (lanes - 1 if head is None else head)) // lanes)
    name, inputs = _operator(implementation, pass_), _inputs(implementation, pass_)
    if implementation.variant == "warp-per-row":
        group, each = next((group, each) for group, each in WARP[ITEMSIZE[dtype]] if group * each >= vectors)
        return (Launch(f"warp_per_row<{name}, {TYPES[dtype]}, {group}, {each}>", -(-rows * group // 128), 128),)
    if implementation.variant == "block-per-row":
        for threads, each, blocks in BLOCK[pass_]:
            if threads * each >= vectors:
                return (Launch(f"block_per_row<{name}, {TYPES[dtype]}, {threads}, {each}, {blocks}>", rows, threads),)
        shared, most = 16 * inputs * vectors, SHARED_LIMIT.get(arch, MOST_SHARED) - SCRATCH
        if shared > most:
            raise ValueError(
                f"{implementation.full_name}: n = {n} needs {shared} bytes of shared memory, a block on {arch} has {most}"
            )
        threads, each, blocks = IN_SHARED[shared > MOST_SHARED // 2 - SCRATCH]
        return (Launch(f"block_per_row<{name}, {TYPES[dtype]}, {threads}, {each}, {blocks}>", rows, threads, shared),)
    if implementation.variant == "cluster-per-row":
        if not _clusters(arch):
            raise ValueError(f"{implementation.full_name}: clusters need sm_90, this is {arch}")
        blocks = _cluster(implementation, pass_, n, dtype)
        shared = 16 * inputs * _chunks(implementation, pass_, n, dtype)
        kernel = f"cluster_per_row<{name}, {TYPES[dtype]}, {CLUSTER[0]}, {blocks}>"
        return (Launch(kernel, rows * blocks, CLUSTER[0], shared, blocks),)
    grid = rows * _chunks(implementation, pass_, n, dtype)
    grids = {"partials": grid, "combine": rows, "write_rows": grid}
    return tuple(
        Launch(kernel, grids[kernel.partition("<")[0]], ONLINE[pass_][0]) for kernel in _online(implementation, pass_, dtype)
    )


def every(implementation: Implementation, pass_: str, dtype: str, arch: str) -> tuple[Launch, ...]:
    """Every kernel that a plan may name, each once, on a grid of one block."""
    name = _operator(implementation, pass_)
    if implementation.variant == "warp-per-row":
        return tuple(
            Launch(f"warp_per_row<{name}, {TYPES[dtype]}, {group}, {each}>", 1, 128) for group, each in WARP[ITEMSIZE[dtype]]
        )
    if implementation.variant == "block-per-row":
        return tuple(
            Launch(f"block_per_row<{name}, {TYPES[dtype]}, {threads}, {each}, {blocks}>", 1, threads)
            for threads, each, blocks in (*BLOCK[pass_], *IN_SHARED)
        )
    if implementation.variant == "cluster-per-row":
        threads, sizes = CLUSTER
        kernels = [(f"cluster_per_row<{name}, {TYPES[dtype]}, {threads}, {blocks}>", blocks) for blocks in sizes]
        return tuple(Launch(kernel, 1, threads, 0, blocks) for kernel, blocks in kernels) if _clusters(arch) else ()
    return tuple(Launch(kernel, 1, ONLINE[pass_][0]) for kernel in _online(implementation, pass_, dtype))


def _clusters(arch: str) -> bool:
    return int(arch.removeprefix("sm_").rstrip("af")) >= 90


def _cluster(implementation: Implementation, pass_: str, n: int, dtype: str) -> int:
    """Blocks of a cluster for rows of n elements."""
    lanes = 16 // ITEMSIZE[dtype]
    row = 16 * _inputs(implementation, pass_) * -(-(n + lanes - 1) // lanes)
    return next((blocks for blocks in CLUSTER[1] if row <= blocks * (MOST_SHARED // 2 - SCRATCH)), CLUSTER[1][-1])


def _operator(implementation: Implementation, pass_: str) -> str:
    return OPERATORS[implementation.operator.name] + pass_.capitalize()


def _inputs(implementation: Implementation, pass_: str) -> int:
    """How many (rows, n) arrays a pass reads."""
    return sum(len(argument.axes) == 2 for argument in implementation.operator.passes[pass_].inputs)


def _online(implementation: Implementation, pass_: str, dtype: str) -> list[str]:
    name = f"{_operator(implementation, pass_)}, {TYPES[dtype]}"
    threads, each = ONLINE[pass_]
    scalar = implementation.operator.name == "logsumexp"
    reduces = [] if scalar and pass_ == "backward" else [f"partials<{name}, {threads}, {each}>", f"combine<{name}, {threads}>"]
    return reduces + ([] if scalar and pass_ == "forward" else [f"write_rows<{name}, {threads}, {each}>"])


def _chunks(implementation: Implementation, pass_: str, n: int, dtype: str) -> int:
    """Chunks of a row online, for any alignment of it; vectors a block in a cluster; 0 where blocks don't share rows."""
    lanes = 16 // ITEMSIZE[dtype]
    if implementation.variant == "cluster-per-row":
        return -(-(n + lanes - 1) // (lanes * _cluster(implementation, pass_, n, dtype)))
    if implementation.variant != "online":
        return 0
    threads, each = ONLINE[pass_]
    return -(-(n + lanes - 1) // (threads * each * lanes))


def _head(memory: Any, dtype: str) -> int | None:
    size = ITEMSIZE[dtype]
    row, step = memory.strides
    if step != 1:
        return 0
    return None if row * size % 16 else memory.tensor.data_ptr() % 16 // size


def _pointers(implementation: Implementation, pass_: str, memory: tuple[Any, ...]) -> list[int]:
    """The kernels' first arguments: two (rows, n) inputs, the output, two inputs of one value a row; 0 where there is none."""
    card = implementation.operator.passes[pass_]
    *inputs, output = memory
    wide = [each for each, argument in zip(inputs, card.inputs, strict=True) if len(argument.axes) == 2]
    narrow = [each for each, argument in zip(inputs, card.inputs, strict=True) if len(argument.axes) == 1]
    found: list[int] = []
    for each, width in (
        *((each, 2) for each in (*wide, None)[:2]),
        (output, 2),
        *((each, 1) for each in (*narrow, None, None)[:2]),
    ):
        found += [each.tensor.data_ptr(), *(*each.strides, 0)[:width]] if each else [0] * (width + 1)
    return found
