"""The softmax family over the last axis: softmax, log_softmax and logsumexp, forward and backward.

Source: M. Dukhan and A. Ablavatski, The Two-Pass Softmax Algorithm, arXiv 2001.04438; M. Milakov and N. Gimelshein,
Online normalizer calculation for softmax, arXiv 1805.02867.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..card import CPU_AND_GPU, GPU, ISAS, PASSES, ROW, TRITON, per_element, torch_peers, within
from ..registry import ITEMSIZE, Argument, Axes, Implementation, Operator, Pass

# The gate is the error of a legal but poor float32 implementation on the widest rows, and of one rounding too many in 16
# bits; beyond it the result is wrong rather than inaccurate.
GATE = {"float32": 4096.0, "float16": 8.0, "bfloat16": 8.0}
# PyTorch's eager gradient of logsumexp rounds x - lse to 16 bits before the exponential: poor, but its definition.
GATE_ROUNDED_EXPONENT = GATE | {"float16": 64.0, "bfloat16": 512.0}


def sweeps(per_row: tuple[int, int] = (0, 0), **by_pass: tuple[int, int]) -> Callable[[str, Axes, str], int]:
    """Bytes moved when a pass reads and writes whole (rows, n) arrays that many times, and (rows,) ones ``per_row``: forward
    and backward."""

    def moved(pass_: str, axes: Axes, dtype: str) -> int:
        elements = sum(by_pass[pass_]) * axes["n"] + per_row[PASSES.index(pass_)]
        return elements * axes["rows"] * ITEMSIZE[dtype]

    return moved


def exps(**by_pass: int) -> Callable[[str, Axes], int]:
    """Exponentials evaluated, when a pass evaluates that many per element."""
    return lambda pass_, axes: by_pass[pass_] * axes["rows"] * axes["n"]


X = Argument("x", ROW)
Y = Argument("y", ROW)
DY = Argument("dy", ROW)
DX = Argument("dx", ROW)
LSE = Argument("lse", ("rows",))
DLSE = Argument("dlse", ("rows",))

STRESS = (
    "normal",
    "normal-0.1",
    "normal-10",
    "normal-100",
    "uniform-40",
    "uniform-1000",
    "equal",
    "ramp-200",
    "falling-ramp-200",
    "one-huge",
    "peak-over-low-bulk",
    "at-88",
    "at-89",
    "at-104",
    "at-710",
    "offset-1e4",
    "offset-minus-1e4",
    "offset-1e6",
    "offset-minus-1e6",
    "offset-1e7",
    "offset-minus-1e7",
    "offset-2e7",
    "offset-1e8",
    "at-3e38",
    "alternating-huge",
    "largest",
    "masked-one",
    "masked-leading",
    "masked-trailing",
    "masked-random",
    "masked-all",
    "plus-infinity",
    "nan",
    "denormal",
    "signed-zeros",
)

QUICK = tuple(
    ({"rows": rows, "n": n}, dtype, pass_)
    for rows, n, dtype, pass_ in (
        (1, 1 << 24, "float32", "forward"),
        (1, 65536, "float32", "forward"),
        (1, 1 << 20, "float32", "forward"),
        (1, 1024, "float32", "forward"),
        (4096, 1024, "float32", "forward"),
        (1, 64, "float32", "forward"),
        (1, 1 << 22, "float32", "forward"),
        (1, 1 << 18, "float32", "forward"),
        (1, 4096, "float32", "forward"),
        (4096, 1024, "bfloat16", "forward"),
        (4096, 1024, "float32", "backward"),
        (1, 16384, "float32", "forward"),
        (4096, 128, "float32", "forward"),
        (4096, 1024, "float16", "forward"),
        (4096, 1024, "bfloat16", "backward"),
    )
)


REFERENCE = Implementation(
    "reference", "float64", passes=PASSES, targets=CPU_AND_GPU, bound=within(0.501, 0.501), note="PyTorch in float64"
)


def _rows_up_to(**longest: int) -> Callable[[str, Axes, str], str | None]:
    """The limit of an implementation that holds a whole row on chip, by pass."""

    def limits(pass_: str, axes: Axes, dtype: str) -> str | None:
        n = axes["n"]
        return f"takes rows of up to {longest[pass_]} elements, not {n}" if n > longest[pass_] else None

    return limits


# Registers of 8 blocks of 1024 threads: 32 elements a thread forward, 16 of each input backward, without spills.
ON_CHIP = _rows_up_to(forward=1 << 18, backward=1 << 17)
ANY_ROW = _rows_up_to(forward=1 << 30, backward=1 << 30)


def _triton(online: tuple[int, int], back: tuple[int, int], online_back: tuple[int, int]) -> tuple[Implementation, ...]:
    """``online``: reads and writes of a forward pass that can't keep the row; then backward on chip, and backward online."""
    forward = (1, online[1])
    per_row = (0, 0) if online[1] else (1, 2)  # logsumexp
    exp, exp_back = (2 if online[1] else 1), (0 if online_back[0] == 4 else 1)
    return (
        Implementation(
            "triton",
            "fused",
            passes=PASSES,
            targets=TRITON,
            bound=within(3.0),
            moved=sweeps(per_row, forward=forward, backward=back),
            exps=exps(forward=1, backward=exp_back),
            limits=ON_CHIP,
            note="whole rows in registers: of one block up to 32,768 elements (16,384 backward), else of a cluster of blocks, "
            "which needs sm_90 and Triton 3.9 or newer",
        ),
        Implementation(
            "triton",
            "online",
            passes=PASSES,
            targets=TRITON,
            bound=within(3.0),
            moved=sweeps(per_row, forward=online, backward=online_back),
            exps=exps(forward=exp, backward=exp_back),
            limits=ANY_ROW,
            note="one program a row, a running (maximum, sum) over blocks; for many long rows",
        ),
        Implementation(
            "triton",
            "two-pass",
            targets=TRITON,
            bound=within(3.0, passes=("forward",)),
            moved=sweeps(per_row, forward=online),
            exps=exps(forward=exp),
            limits=ANY_ROW,
            note="(mantissa, exponent) sums, a row split over many programs; for few, very long rows",
        ),
    )


WARP = _rows_up_to(forward=1024, backward=1024)


def _in_a_block(backward_inputs: int) -> Callable[[str, Axes, str], str | None]:
    """The limit of a block's shared memory: 226 KB from sm_90 on, shared by the arrays of a row."""

    def limits(pass_: str, axes: Axes, dtype: str) -> str | None:
        arrays = backward_inputs if pass_ == "backward" else 1
        most = ((226 << 10) // arrays // 16 * 16 - 16) // ITEMSIZE[dtype] + 1
        return f"takes rows of up to {most} elements of {dtype}, not {axes['n']}" if axes["n"] > most else None

    return limits


def _in_a_cluster(backward_inputs: int) -> Callable[[str, Axes, str], str | None]:
    """The limit of eight blocks' shared memory."""

    def limits(pass_: str, axes: Axes, dtype: str) -> str | None:
        arrays = backward_inputs if pass_ == "backward" else 1
        most = 8 * ((226 << 10) // arrays // 16 * 16) // ITEMSIZE[dtype] - 16
        return f"takes rows of up to {most} elements of {dtype}, not {axes['n']}" if axes["n"] > most else None

    return limits


def _cuda(online: tuple[int, int], back: tuple[int, int], online_back: tuple[int, int]) -> tuple[Implementation, ...]:
    """As ``_triton``: reads and writes of the online forward pass, of backward on chip, and of backward online."""
    forward = (1, online[1])
    scalar = not online[1]  # logsumexp
    per_row = (1, 2) if scalar else (0, 0)
    exp_back = 0 if online_back[0] == 4 else 1
    ours = partial(Implementation, "cuda", passes=PASSES, targets=GPU, bound=within(3.2))
    return (
        ours(
            "warp-per-row",
            moved=sweeps(per_row, forward=forward, backward=back),
            exps=exps(forward=1, backward=exp_back),
            limits=WARP,
            note="8 or 32 lanes of a warp hold a row in registers; for short rows",
        ),
        ours(
            "block-per-row",
            moved=sweeps(per_row, forward=forward, backward=back),
            exps=exps(forward=1, backward=exp_back),
            limits=_in_a_block(1 if scalar else 2),
            note="a block holds a row in registers or shared memory (162 KB of it on sm_80)",
        ),
        ours(
            "cluster-per-row",
            moved=sweeps(per_row, forward=forward, backward=back),
            exps=exps(forward=1, backward=exp_back),
            limits=_in_a_cluster(1 if scalar else 2),
            note="2 to 8 blocks of a cluster hold a row in shared memory; sm_90 on",
        ),
        ours(
            "online",
            moved=sweeps(per_row, forward=online, backward=online_back),
            exps=exps(forward=1 if scalar or online_back[0] == 3 else 2, backward=exp_back),
            limits=ANY_ROW,
            note="many blocks each reduce a chunk to (reference, sum), combined in a fixed order; the same bits every time",
        ),
    )


def _peers() -> tuple[Implementation, ...]:
    return (
        *torch_peers(),
        Implementation(
            "peer", "scipy", "peers", dtypes=("float32",), vouched=False, note="allocates its result, which is copied"
        ),
    )


def _cpp() -> tuple[Implementation, ...]:
    """The algorithms from the same sweeps, plain and with streaming stores; and the paper's own code."""
    algorithms = (
        ("three-pass-recompute", (3, 1), 2, True, "maximum, sum, write"),
        ("three-pass-reload", (3, 2), 1, True, "maximum, sum and store, scale"),
        ("two-pass", (2, 1), 2, True, "sum, write: exponents are subtracted, as integers, instead of a maximum"),
        ("two-pass-backward-walk", (2, 1), 2, False, "two-pass whose second pass starts with what the first read last"),
        ("online", (2, 2), 1, True, "sum and store, scale: two-pass with one exponential an element"),
    )
    streamed = "stores past the caches"
    ours = (
        Implementation(
            "simd",
            name + suffix,
            isas=ISAS,
            threaded=True,
            bound=within(2, passes=("forward",)),
            moved=sweeps(forward=moves),
            exps=exps(forward=each),
            note=f"{note}; {streamed}" if suffix else note,
        )
        for name, moves, each, streams, note in algorithms
        for suffix in (("", "-stream") if streams else ("",))
    )
    published = (
        Implementation(
            "simd",
            f"{name}-as-published",
            dtypes=("float32",),
            isas=ISAS,
            moved=sweeps(forward=moves),
            exps=exps(forward=each),
            vouched=False,
            note=note,
        )
        for name, moves, each, note in (
            ("three-pass-recompute", (3, 1), 2, "the paper's polynomial, unrolls and float32 lane sums"),
            ("three-pass-reload", (3, 2), 1, "the paper's polynomial, unrolls and float32 lane sums"),
            (
                "two-pass",
                (2, 1),
                2,
                "the paper's polynomial, unrolls and float32 lane sums, which stagnate at 2^24 a lane; -inf gives NaN with "
                "AVX2; exponents are exact up to |x| = 1.16e7, NaN from 2.36e38",
            ),
        )
    )
    return (*ours, *published)


SOFTMAX = Operator(
    name="softmax",
    summary="probabilities from scores",
    formula="y_i = exp(x_i) / sum_k exp(x_k)",
    source="arXiv 2001.04438",
    passes={
        "forward": Pass((X,), (Y,), "softmax", GATE, per_element(4), per_element(1)),
        "backward": Pass(
            (Y, DY),
            (DX,),
            "softmax_backward",
            GATE,
            per_element(4),
            per_element(0),
            scale="softmax_backward_scale",
            derive="softmax_backward_inputs",
        ),
    },
    nan_policy="as PyTorch: a NaN or +inf in a row makes the whole row NaN; -inf gives an exact 0; a row of -inf alone is NaN",
    valid_range="every float32, float16 and bfloat16 input",
    invariants=("rows_sum_to_one", "non_negative", "zero_where_masked"),
    variants=(
        REFERENCE,
        Implementation(
            "numpy",
            "three-pass",
            passes=PASSES,
            bound=within(80, passes=("forward",)) | within(8, passes=("backward",)),
            moved=sweeps(forward=(5, 3), backward=(6, 3)),
            note="x - max is rounded: 64 ULP at a distance of 64 to 87 below the maximum",
        ),
        *_cpp(),
        Implementation("simd", "auto", passes=PASSES, isas=ISAS, threaded=True, bound=within(2)),
        *_triton((2, 1), (2, 1), (4, 1)),
        *_cuda((2, 1), (2, 1), (4, 1)),
        *_peers(),
        Implementation(
            "peer", "xnnpack", "peers", dtypes=("float32",), vouched=False, note="Debian's of 2022: exponentials in SSE2"
        ),
        Implementation("peer", "liger", "peers", PASSES, targets=GPU, vouched=False),
        Implementation("peer", "quack", "peers", PASSES, targets=GPU, vouched=False),
    ),
    priority=QUICK,
    stress=STRESS,
)

LOG_SOFTMAX = Operator(
    name="log_softmax",
    summary="log-probabilities from scores",
    formula="y_i = x_i - log sum_k exp(x_k)",
    source="arXiv 1805.02867",
    passes={
        "forward": Pass((X,), (Y,), "log_softmax", GATE, per_element(3), per_element(1), scale="at_least_one"),
        "backward": Pass(
            (Y, DY),
            (DX,),
            "log_softmax_backward",
            GATE,
            per_element(3),
            per_element(1),
            scale="log_softmax_backward_scale",
            derive="log_softmax_backward_inputs",
        ),
    },
    nan_policy="as PyTorch: a NaN or +inf in a row makes the whole row NaN; -inf gives -inf; a row of -inf alone is NaN",
    valid_range="every float32, float16 and bfloat16 input",
    invariants=("exponentials_sum_to_one",),
    variants=(
        REFERENCE,
        Implementation("numpy", "three-pass", passes=PASSES, bound=within(6), moved=sweeps(forward=(5, 3), backward=(4, 3))),
        Implementation(
            "simd",
            "auto",
            passes=PASSES,
            isas=ISAS,
            threaded=True,
            bound=within(2),
            moved=sweeps(forward=(2, 1), backward=(3, 1)),
            exps=exps(forward=1, backward=1),
        ),
        *_triton((2, 1), (2, 1), (3, 1)),
        *_cuda((2, 1), (2, 1), (3, 1)),
        *_peers(),
    ),
    priority=QUICK,
    stress=STRESS,
)

LOGSUMEXP = Operator(
    name="logsumexp",
    summary="the log of a sum of exponentials",
    formula="lse = log sum_k exp(x_k)",
    source="arXiv 1805.02867",
    passes={
        "forward": Pass((X,), (LSE,), "logsumexp", GATE, per_element(2), per_element(1), scale="at_least_one"),
        "backward": Pass(
            (X, LSE, DLSE),
            (DX,),
            "logsumexp_backward",
            GATE_ROUNDED_EXPONENT,
            per_element(2),
            per_element(1),
            derive="logsumexp_backward_inputs",
        ),
    },
    nan_policy="as PyTorch: NaN in a row gives NaN; +inf gives +inf; -inf counts for nothing; a row of -inf alone gives -inf",
    valid_range="every float32, float16 and bfloat16 input",
    invariants=("at_least_the_maximum",),
    variants=(
        REFERENCE,
        Implementation(
            "numpy",
            "three-pass",
            passes=PASSES,
            bound=within(6, passes=("forward",)) | within(80, passes=("backward",)),
            moved=sweeps(forward=(4, 2), backward=(3, 3)),
            note="x - lse is rounded: 64 ULP at a distance of 64 to 87",
        ),
        Implementation(
            "simd",
            "auto",
            passes=PASSES,
            isas=ISAS,
            threaded=True,
            bound=within(2),
            moved=sweeps((1, 2), forward=(1, 0), backward=(1, 1)),
            exps=exps(forward=1, backward=1),
        ),
        *_triton((1, 0), (1, 1), (1, 1)),
        *_cuda((1, 0), (1, 1), (1, 1)),
        *_peers(),
    ),
    priority=QUICK,
    stress=STRESS,
)

OPERATORS = (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP)
