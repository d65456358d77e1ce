"""Activations and what is made of them: the truth about them, and what every CPU backend makes of that."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from ulproof.benchmarks import check
from ulproof.benchmarks.measure import ulp
from ulproof.impls import implementations, load, operators
from ulproof.impls._backends import stress
from ulproof.impls._backends.arrays import dtype_named
from ulproof.impls.registry import Implementation, Operator

FAMILIES = ("activations", "gated", "poly_norm", "topk_relu", "fused")
NAMES = [name for name, each in operators().items() if each.package.rpartition(".")[2] in FAMILIES]
BACKENDS = ("numpy", "simd")
HERE = [
    each
    for name in NAMES
    for each in implementations(name)
    if each.backend in BACKENDS and each.vouched and each.unavailable("cpu") is None
]
SHAPE = {"rows": 6, "n": 40}

named = pytest.mark.parametrize("name", NAMES)
implemented = pytest.mark.parametrize("implementation", HERE, ids=lambda each: each.full_name)


def oracle(operator: Operator, pass_: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    reference = import_module(operator.package + ".reference")
    wide = (each.astype(np.float64) for each in inputs)
    found: tuple[np.ndarray, ...] = getattr(reference, operator.passes[pass_].oracle)(*wide, **operator.params)
    return found


def textbook(name: str) -> Callable[..., Any]:
    """The formula as a user of PyTorch would write it, and as torch.compile gets it."""
    from ulproof.impls.activations.peers import formulas
    from ulproof.impls.poly_norm import peers as poly_norm
    from ulproof.impls.topk_relu import peers as topk_relu

    single = formulas()
    gates = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "fatrelu_and_mul": "fatrelu"}
    if name in gates:
        return lambda gate, up, **params: single[gates[name]](gate, **params) * up
    if name.startswith("bias_"):
        return lambda x, bias: single[name.removeprefix("bias_")]((x + bias).float().double())
    if name.endswith("_zeros"):
        return single[name.removesuffix("_zeros")]
    rows: dict[str, Callable[..., Any]] = {"poly_norm": poly_norm.formula, **topk_relu.FORMULAS}
    return rows.get(name) or single[name]


class TestTruth:
    @named
    def test_is_pytorchs_in_float64_with_its_derivatives(self, name: str) -> None:
        """Where PyTorch's own formulas hold: at moderate values."""
        torch: Any = pytest.importorskip("torch")
        operator = operators()[name]
        formula = textbook(name)
        for draw in ("normal-0.1", "normal"):
            given = stress.inputs(operator, "backward", SHAPE, "float32", draw)
            arguments = {each.name: each for each in operator.passes["backward"].inputs}
            tensors = dict(zip(arguments, (torch.from_numpy(each.astype(np.float64)) for each in given), strict=True))
            dy = tensors.pop("dy")
            y, pull = torch.func.vjp(lambda *each: formula(*each, **operator.params), *tensors.values())
            expected = [np.asarray(each) for each in pull(dy)]
            forward = [each for each in given if each is not given[list(arguments).index("dy")]]
            np.testing.assert_allclose(oracle(operator, "forward", *forward)[0], y.numpy(), rtol=1e-9, atol=1e-13)
            # Float32 in between, of a sum with a bias, rounds derivatives too.
            loose = 1e-5 if name.startswith("bias") else 1e-9
            for found, there in zip(oracle(operator, "backward", *given), expected, strict=True):
                np.testing.assert_allclose(found, there, rtol=loose, atol=1e-6 if name.startswith("bias") else 1e-12)

    @pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "sigmoid", "softplus", "tanh", "exp", "crrelu"])
    def test_float64_is_wide_enough(self, name: str) -> None:
        """Against 60 digits, in the tails, beside the derivatives' zeros and everywhere between."""
        mpmath: Any = pytest.importorskip("mpmath")
        x = np.unique(np.concatenate([np.asarray(stress.POINTS), np.linspace(0.01, 20, 60), [1e-30, 1e-5]]).astype(np.float32))
        x = np.concatenate([x[x < 100], -x[x < 100]])
        eps = np.float32(0.01)
        parameters = (np.array([eps]),) if name == "crrelu" else ()
        with mpmath.workdps(60):
            number = mpmath.mpf
            formulas = {
                "gelu": lambda v: v * mpmath.erfc(-v / mpmath.sqrt(2)) / 2,
                "gelu_tanh": lambda v: v / (1 + mpmath.exp(-mpmath.sqrt(8 / mpmath.pi) * (v + number(0.044715) * v**3))),
                "silu": lambda v: v / (1 + mpmath.exp(-v)),
                "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
                "softplus": lambda v: mpmath.log(1 + mpmath.exp(v)),
                "tanh": mpmath.tanh,
                "exp": mpmath.exp,
                "crrelu": lambda v: max(v, number(0)) + number(float(eps)) * v * mpmath.exp(-v * v / 2),
            }
            exact = formulas[name]
            values = [float(exact(number(float(v)))) for v in x]
            slopes = [float(mpmath.diff(exact, number(float(v)), h=number(10) ** -40)) for v in x]
        operator = operators()[name]
        np.testing.assert_allclose(oracle(operator, "forward", x, *parameters)[0], values, rtol=2e-13, atol=1e-300)
        found = oracle(operator, "backward", x, np.ones_like(x), *parameters)[0]
        reference = import_module(operator.package + ".reference")
        wide = (x.astype(np.float64), np.ones(x.size), *parameters)
        gradients = oracle(operator, "backward", x, np.ones_like(x), *parameters)
        (scale, *_) = getattr(reference, operator.passes["backward"].scale or "")(*wide, *gradients)
        assert (np.abs(found - slopes) <= 1e-12 * scale + 1e-300).all()

    @named
    def test_nan_reaches_every_output_that_depends_on_it(self, name: str) -> None:
        operator = operators()[name]
        (x, *rest) = stress.inputs(operator, "forward", SHAPE, "float32")
        x = np.where(np.arange(x.size).reshape(x.shape) == 7, np.float32(np.nan), x)
        y = oracle(operator, "forward", x, *rest)[0]
        assert np.isnan(y).sum() == (SHAPE["n"] if name == "poly_norm" else 1)

    @pytest.mark.parametrize(
        ("name", "limits"),
        [
            *(("relu", (0, np.inf)), ("relu2", (0, np.inf)), ("fatrelu", (0, np.inf)), ("gelu", (0, np.inf))),
            *(("gelu_tanh", (0, np.inf)), ("silu", (0, np.inf)), ("sigmoid", (0, 1)), ("softplus", (0, np.inf))),
            *(("tanh", (-1, 1)), ("exp", (0, np.inf)), ("crrelu", (0, np.inf)), ("hermite_act", (-np.inf, np.inf))),
            *(("hermite_act_1", (-np.inf, np.inf)), ("rational_b", (np.inf, -np.inf)), ("rational_n", (-np.inf, np.inf))),
        ],
    )
    def test_infinities_give_the_limits(self, name: str, limits: tuple[float, float]) -> None:
        operator = operators()[name]
        parameters = stress.inputs(operator, "forward", {"n": 2}, "float32")[1:]
        (y,) = oracle(operator, "forward", np.array([-np.inf, np.inf]), *parameters)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(y.astype(np.float32), np.asarray(limits, np.float32))
        (dx, *_) = oracle(operator, "backward", np.array([-np.inf, np.inf]), np.ones(2), *parameters)
        assert not np.isnan(dx).any()

    @named
    def test_scales_are_never_smaller_than_the_output(self, name: str) -> None:
        operator = operators()[name]
        reference = import_module(operator.package + ".reference")
        for pass_, card in operator.passes.items():
            if card.scale:
                given = [each.astype(np.float64) for each in stress.inputs(operator, pass_, SHAPE, "float32", "normal-10")]
                expected = oracle(operator, pass_, *given)
                for scale, output in zip(
                    getattr(reference, card.scale)(*given, *expected, **operator.params), expected, strict=True
                ):
                    assert (scale >= np.abs(output) * (1 - 1e-12)).all()

    def test_rational_a_has_the_fit_that_its_authors_claim(self) -> None:
        from ulproof.impls.activations import RATIONAL_A
        from ulproof.impls.activations import reference as truth

        x = np.linspace(-3, 3, 2001)
        (exact,) = truth.gelu(x)
        assert 3e-3 < np.abs(truth.rational(x, *map(np.asarray, RATIONAL_A))[0] - exact).max() < 5e-3

    @pytest.mark.parametrize("d", [1, 2, 3, 4, 8])
    def test_hermite_activations_are_normalised(self, d: int) -> None:
        """E phi = 0, E phi^2 = 1 and E phi' = 2^(-d/4), of a standard normal variable."""
        from ulproof.impls.activations import reference as truth

        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        weights = weights / weights.sum()
        (phi,), (slope,) = truth.hermite_act(nodes, d=d), truth.hermite_act_backward(nodes, np.ones(40), d=d)
        assert weights @ phi == pytest.approx(0, abs=1e-12)
        assert weights @ phi**2 == pytest.approx(1, abs=1e-12)
        assert weights @ slope == pytest.approx(np.sqrt(0.5) if d == 1 else 2 ** (-d / 4), abs=1e-12)

    def test_the_k_largest_among_ties_nan_and_infinity(self) -> None:
        from ulproof.impls.topk_relu import reference as truth

        x = np.array([[1, 2, 2, 2, 3], [-1, 0, -2, 5, -0.0], [np.nan, np.inf, 1, np.nan, 2], [4, 4, 4, 4, 4]])
        (y,) = truth.topk_relu(x, 3)
        np.testing.assert_array_equal(y, [[0, 2, 2, 0, 3], [0, 0, 0, 5, 0], [np.nan, np.inf, 0, np.nan, 0], [4, 4, 4, 0, 0]])


@named
def test_every_check_is_within_the_bound(name: str) -> None:
    """All the plan's, of every backend that needs no toolchain: stress inputs, lengths, threads, every 16-bit number."""
    planned = check.plan([name], {"backend": BACKENDS, "target": ["cpu"]})
    if not operators()[name].elementwise:  # long rows in float32 alone: sorting and summing them takes its time
        planned = [item for item in planned if item.dtype == "float32" or dict(item.axes)["n"] < 5000]
    records = [(item, item.check()) for item in planned]
    failures = [f"{item}: {record['reason']}" for item, record in records if check.fails(record) or record["ulp"] is None]
    assert records
    assert not failures, "\n".join([f"{len(failures)} failures, the first of them:", *failures[:10]])


@implemented
def test_states_a_bound_of_the_contract(implementation: Implementation) -> None:
    bound = implementation.bound or {}
    for dtype in implementation.dtypes:
        allowed = {"forward": 3.0, "backward": 4.0} if dtype == "float32" else dict.fromkeys(("forward", "backward"), 0.51)
        for pass_ in implementation.passes:
            # A bias's gradient stays float32 beside 16 bits: it is a sum of terms, not one number rounded once.
            summed = pass_ == "backward" and implementation.operator.name.startswith("bias_") and dtype != "float32"
            assert bound[pass_, dtype] <= (1 if summed else allowed[pass_]), (pass_, dtype)


@implemented
def test_any_layout_gives_the_same_numbers(implementation: Implementation) -> None:
    """Strided inputs and outputs; more axes; a copy that is not aligned to vectors."""
    operator = implementation.operator
    flat = len(operator.passes["forward"].inputs[0].axes) == 1
    for pass_ in implementation.passes:
        card = operator.passes[pass_]
        shaped = {argument.name: argument.axes[:1] == card.inputs[0].axes[:1] for argument in card.inputs + card.outputs}
        given = stress.inputs(operator, pass_, {"rows": 6, "n": 240 if flat else 40}, "float32", "normal-10")
        given = tuple(
            each.reshape(6, 40) if flat and shaped[argument.name] else each
            for argument, each in zip(card.inputs, given, strict=True)
        )
        expected = implementation(*given, pass_=pass_)
        expected = expected if isinstance(expected, tuple) else (expected,)
        wide = [
            (each.reshape(-1) if flat and shaped[argument.name] else each).astype(np.float64)
            for argument, each in zip(card.inputs + card.outputs, (*given, *expected), strict=True)
        ]
        reference = import_module(".reference", operator.package)
        scaled = getattr(reference, card.scale)(*wide, **operator.params) if card.scale else (None,) * len(expected)
        scales = {argument.name: scale for argument, scale in zip(card.outputs, scaled, strict=True)}
        for layout in (*(each for each in stress.STRIDED if each != "broadcast-row"), "misaligned"):

            def arranged(argument: Any, array: np.ndarray, layout: str = layout, shaped: Any = shaped) -> np.ndarray:
                if not shaped[argument.name]:
                    return array
                return stress.misaligned(array) if layout == "misaligned" else stress.strided(array, layout)

            inputs = tuple(map(arranged, card.inputs, given))
            outputs = tuple(
                arranged(argument, np.full(each.shape, -77, each.dtype))
                for argument, each in zip(card.outputs, expected, strict=True)
            )
            implementation.bind(inputs, outputs, pass_=pass_)()
            for argument, output, there in zip(card.outputs, outputs, expected, strict=True):
                if shaped[argument.name]:
                    np.testing.assert_array_equal(output, there, err_msg=f"{pass_} {layout}")
                else:  # a parameter's gradient is summed in the memory's order
                    assert ulp.ulp_error(output, there, "float32", scales[argument.name]).max() <= 1, layout
        lead = tuple(
            each.reshape(2, 3, 40) if shaped[argument.name] else each for argument, each in zip(card.inputs, given, strict=True)
        )
        again = implementation(*lead, pass_=pass_)
        for argument, output, there in zip(
            card.outputs, again if isinstance(again, tuple) else (again,), expected, strict=True
        ):
            np.testing.assert_array_equal(output.reshape(there.shape), there, err_msg=f"{pass_} {argument.name}")


@pytest.mark.parametrize(
    "implementation", [each for each in HERE if each.operator.package.endswith("gated")], ids=lambda each: each.full_name
)
def test_the_halves_of_a_packed_array_are_gate_and_up(implementation: Implementation) -> None:
    packed = stress.stress("normal", 5, 2 * 33)
    gate, up = packed[:, :33], packed[:, 33:]
    np.testing.assert_array_equal(implementation(gate, up), implementation(gate.copy(), up.copy()))
    gradient = np.zeros_like(packed)
    dgate, dup = gradient[:, :33], gradient[:, 33:]
    implementation.bind((gate, up, gate), (dgate, dup), pass_="backward")()
    for half, whole in zip((dgate, dup), implementation(gate.copy(), up.copy(), gate.copy(), pass_="backward"), strict=True):
        np.testing.assert_array_equal(half, whole)


@implemented
def test_the_same_bits_on_every_run_and_for_every_thread_count(implementation: Implementation) -> None:
    axes = {"n": 70_008} if len(implementation.operator.passes["forward"].inputs[0].axes) == 1 else {"rows": 9, "n": 8008}
    for pass_ in implementation.passes:
        given = stress.inputs(implementation.operator, pass_, axes, "float32", "normal-10")
        first: Any = None
        for threads in (1, 1, 2, 3) if implementation.threaded else (1, 1):
            found = implementation(*given, pass_=pass_, threads=threads)
            found = found if isinstance(found, tuple) else (found,)
            for one, other in zip(first or found, found, strict=True):
                np.testing.assert_array_equal(one, other)
            first = found


@implemented
def test_torch_tensors_in_and_out(implementation: Implementation) -> None:
    torch: Any = pytest.importorskip("torch")
    given = stress.inputs(implementation.operator, "forward", {"rows": 4, "n": 16}, "float32")
    expected = implementation(*given)
    found = implementation(*map(torch.from_numpy, given))
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (expected, found)), strict=True):
        assert isinstance(other, torch.Tensor)
        np.testing.assert_array_equal(one, other.numpy())


@implemented
def test_nothing_in_nothing_out(implementation: Implementation) -> None:
    """No elements, or no rows: gradients of parameters and counts are 0."""
    operator = implementation.operator
    for pass_ in implementation.passes:
        card = operator.passes[pass_]
        given = list(stress.inputs(operator, pass_, {"rows": 2, "n": 16}, "float32"))
        for position, argument in enumerate(card.inputs):
            if argument.axes[:1] == card.inputs[0].axes[:1]:
                given[position] = given[position][:0]
        found = implementation(*given, pass_=pass_)
        for argument, output in zip(card.outputs, found if isinstance(found, tuple) else (found,), strict=True):
            assert (output == 0).all(), argument.name


BAD_PARAMS = [
    ("fatrelu", {"t": float("nan")}, "t is nan; it must be a number"),
    ("fatrelu", {"treshold": 1.0}, "unknown parameter 'treshold' of fatrelu:.*; there are t"),
    ("relu", {"t": 1.0}, "unknown parameter 't' of relu:.*; there are none"),
    ("hermite_act", {"d": 1}, "d is 1; it must be an integer of at least 2"),
    ("topk_relu", {"k": 0}, "k is 0; it must be an integer of at least 1"),
    ("topk_relu", {"k": 2.5}, "k is 2.5; it must be an integer"),
    ("topk_relu_stat", {"k": 0}, "k is 0; it must be an integer of at least 1"),
    ("topk_relu_approx", {"recall": 1}, "recall is 1; it must be a number between 0 and 1"),
    ("topk_relu_approx", {"recall": "high"}, "recall is 'high'; it must be a number between 0 and 1"),
    ("poly_norm", {"eps": -1.0}, "eps is -1.0; it must be a number of at least 0"),
]


@pytest.mark.parametrize(("name", "params", "said"), BAD_PARAMS)
def test_params_that_make_no_sense(name: str, params: Any, said: str) -> None:
    given = stress.inputs(operators()[name], "forward", SHAPE, "float32")
    for implementation in (each for each in HERE if each.operator.name == name):
        with pytest.raises(ValueError, match=said):
            implementation(*given, params=params)


def test_params_reach_the_code() -> None:
    x = np.array([-1, 0.25, 0.5, 1], np.float32)
    for implementation in (each for each in HERE if each.operator.name == "fatrelu"):
        np.testing.assert_array_equal(implementation(x, params={"t": 0.5}), [0, 0, 0.5, 1])
    for implementation in (each for each in HERE if each.operator.name == "topk_relu"):
        np.testing.assert_array_equal(implementation(x[None], params={"k": 1}), [[0, 0, 0, 1]])


def implementations_of(name: str) -> pytest.MarkDecorator:
    found = [each for each in HERE if each.operator.name == name]
    return pytest.mark.parametrize("implementation", found, ids=lambda each: each.full_name)


def kept_by(implementation: Implementation, x: np.ndarray, **params: Any) -> np.ndarray:
    kept: np.ndarray = implementation(x, params=params) != 0
    return kept


@pytest.mark.parametrize(
    "implementation", [each for each in HERE if each.operator.name == "topk_relu_approx"], ids=lambda each: each.full_name
)
def test_the_approximate_selection_has_the_recall_that_its_card_promises(implementation: Implementation) -> None:
    from ulproof.impls.topk_relu import buckets, expected_recall

    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 11008)).astype(np.float32)
    exact = kept_by(load("topk_relu")["numpy/partition"], x, k=256)
    for recall, count in ((0.5, 256), (0.9, 2048), (0.95, 4096)):
        assert buckets(256, 11008, recall) == count
        kept = kept_by(implementation, x, k=256, recall=recall)
        assert (kept.sum(1) == 256).all()
        # Buckets of few elements share them a little more evenly than the formula, of long rows, allows for.
        assert 0 <= (kept & exact).sum() / exact.sum() - expected_recall(count, 256) < 0.02
    assert np.array_equal(kept_by(implementation, x, k=256, recall=0.99), exact)  # a bucket for each
    x = np.full((1, 11008), 0.5, np.float32)
    x[:, ::2048] = np.arange(1, 7)  # all in one bucket; and ties, of which the first lead and are kept
    expected = np.zeros(11008, bool)
    expected[[*range(1, 256), 5 * 2048]] = True
    assert np.array_equal(kept_by(implementation, x)[0], expected)


@pytest.mark.parametrize(
    "implementation", [each for each in HERE if each.operator.name == "topk_relu_stat"], ids=lambda each: each.full_name
)
def test_how_many_the_statistical_selection_keeps(implementation: Implementation) -> None:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((100, 11008)).astype(np.float32)
    assert kept_by(implementation, normal, k=256).sum(1).mean() == pytest.approx(256, rel=0.02)
    laplace = rng.laplace(size=(100, 11008)).astype(np.float32)  # a heavier tail, of which it keeps more
    assert kept_by(implementation, laplace, k=256).sum(1).mean() == pytest.approx(330, rel=0.02)
    skewed = np.maximum(normal, 0)  # what a rectifier leaves
    # P(x > 1.56) of a normal x, the rectified ones having mean 0.399 and deviation 0.584
    assert kept_by(implementation, skewed, k=256).sum(1).mean() == pytest.approx(653, rel=0.02)
    for row in (np.full(300, 0.1, np.float32), np.full(300, 1e30, np.float32)):
        assert kept_by(implementation, row[None], k=7).all()
    assert np.array_equal(kept_by(implementation, normal, k=11008), normal > 0)


@pytest.mark.parametrize(
    "implementation",
    [each for each in HERE if each.operator.name in ("crrelu", "rational_group")],
    ids=lambda each: each.full_name,
)
def test_parameters_of_another_shape_or_dtype(implementation: Implementation) -> None:
    card = implementation.operator.passes["forward"]
    given = list(stress.inputs(implementation.operator, "forward", SHAPE, "float16"))
    name = card.inputs[1].name
    with pytest.raises(TypeError, match=f"{name} has dtype float16, must be float32"):
        implementation(given[0], given[1].astype(np.float16), *given[2:])
    with pytest.raises(ValueError, match=rf"{name} has shape \(.*\), must be \("):
        implementation(given[0], given[1][None], *given[2:])
    if implementation.operator.name == "rational_group":
        with pytest.raises(ValueError, match="a multiple of 8 elements, not 39"):
            implementation(given[0][:, :39].copy(), *given[1:])


class TestTheCheck:
    """It sees what only these operators can get wrong."""

    def verdict(self, name: str, pass_: str, spoil: Callable[..., None], dtype: str = "float32") -> Any:
        operator = operators()[name]
        axes = {"n": 1000} if len(operator.passes[pass_].inputs[0].axes) == 1 else {"rows": 20, "n": 50}
        given = check.workload(operator, pass_, tuple(axes.items()), dtype, "normal", 0)
        ours = load(name)["numpy/direct" if "numpy/direct" in load(name) else "numpy/by-rows"]
        outputs = [
            np.empty(argument.shape(axes), dtype_named(dtype if argument.dtype == "io" else argument.dtype))
            for argument in operator.passes[pass_].outputs
        ]
        ours.bind(given.inputs, tuple(outputs), pass_=pass_)()
        assert check.judge(ours, pass_, given, outputs, dtype, [])["status"] == "ok"
        spoil(*outputs)
        return check.judge(ours, pass_, given, outputs, dtype, [])

    def test_a_term_that_a_parameter_gradient_lacks(self) -> None:
        def spoil(dx: np.ndarray, deps: np.ndarray) -> None:
            deps += 0.5

        assert self.verdict("crrelu", "backward", spoil)["status"] == "inaccurate"

    def test_coefficients_that_are_mixed_up(self) -> None:
        def spoil(dx: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
            dw[...] = dw[::-1].copy()

        assert self.verdict("poly_relu", "backward", spoil)["status"] == "wrong"

    def test_a_count_that_is_off_by_one(self) -> None:
        def spoil(y: np.ndarray, zeros: np.ndarray) -> None:
            zeros[3] += 1

        found = self.verdict("relu_zeros", "forward", spoil)
        assert found["status"] == "wrong" and found["reason"].startswith("zeros must be exact; zeros[3] is ")

    def test_a_gradient_of_a_parameter_that_was_never_written(self) -> None:
        def spoil(dx: np.ndarray, dbias: np.ndarray) -> None:
            dbias[7] = np.nan

        assert self.verdict("bias_gelu", "backward", spoil)["status"] == "wrong"

    def test_large_inputs_are_judged_in_blocks_with_one_sum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(check, "BLOCK", 300)
        operator = operators()["poly_norm"]
        given = stress.inputs(operator, "backward", {"rows": 20, "n": 50}, "float32")
        pieces = list(check._blocks(operator, "backward", given))
        assert len(pieces) == 5 and pieces[-1].rows is None
        for position, whole in enumerate(oracle(operator, "backward", *given)[1:], 1):
            np.testing.assert_allclose(pieces[-1].expected[position], whole, rtol=1e-12)


def test_the_gelu_that_kat_begins_with_is_none() -> None:
    """Its coefficients make one in the form that they were fit in, and not in either form that its code has."""
    from ulproof.impls.activations import kat

    x = np.linspace(-3, 3, 601, dtype=np.float32)
    [truth] = oracle(operators()["gelu"], "forward", x)
    [fit] = oracle(operators()["rational_b"], "forward", x, *(np.array(each) for each in kat.GELU))
    assert np.abs(fit - truth).max() < 3e-3
    kernels, torch = (load("gelu")[f"peer/{variant}"](x) for variant in ("kat-kernels", "kat-torch"))
    assert np.abs(kernels - truth).max() == pytest.approx(1.465, abs=1e-3) == np.abs(kernels - truth)[-1]
    assert np.abs(torch - truth).max() > 0.5


def test_kat_on_the_cpu_is_another_function_where_x_is_negative() -> None:
    operator = operators()["rational_group"]
    x, a, b = stress.inputs(operator, "forward", {"rows": 4, "n": 64}, "float32")
    right, other = load("rational_group")["numpy/direct"](x, a, b), load("rational_group")["peer/kat-torch"](x, a, b)
    np.testing.assert_allclose(other[x >= 0], right[x >= 0], rtol=1e-5, atol=1e-8)
    assert np.abs(other - right)[x < 0].max() > 0.01


@pytest.mark.parametrize(
    "name, stressed",
    [("gelu:peer/kat-kernels", "normal"), ("gelu:peer/kat-torch", "normal"), ("rational_group:peer/kat-torch", "normal-10")],
)
def test_what_kat_computes_is_marked_wrong_with_the_input(name: str, stressed: str) -> None:
    operator, _, variant = name.partition(":")
    axes = {"rows": 16, "n": 1024} if operator == "rational_group" else {"n": 1 << 14}
    record = check.check(load(operator)[variant], "forward", axes, "float32", stress=stressed)
    assert record["status"] == "wrong" and "x = " in record["reason"]
    assert not check.fails(record)
