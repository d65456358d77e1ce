"""The cards are complete and consistent, looking at them costs nothing, and implementations stay apart from each other."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ulproof.impls import implementations, load, operators
from ulproof.impls._backends import probe
from ulproof.impls.registry import BACKENDS, ITEMSIZE, Implementation, Operator

EVERY = [implementation for name in operators() for implementation in implementations(name)]
TARGETS = ("cpu", "interpreter", "cuda:0")
HEAVY = ("torch", "triton", "cuda", "pandas", "scipy", "matplotlib", "jinja2")


@pytest.fixture(params=operators(), ids=str)
def operator(request: pytest.FixtureRequest) -> Operator:
    return operators()[request.param]


@pytest.fixture(params=EVERY, ids=lambda implementation: implementation.full_name)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    return request.param


def test_full_names_are_unique() -> None:
    names = [implementation.full_name for implementation in EVERY]
    assert len(set(names)) == len(names)


def test_every_operator_has_its_truth(operator: Operator) -> None:
    reference = __import__(operator.package + ".reference", fromlist=["reference"])
    for card in operator.passes.values():
        for function in filter(None, (card.oracle, card.scale, card.derive)):
            assert callable(getattr(reference, function)), function
        assert set(operator.dtypes) <= set(card.gate)
        assert {axis for argument in card.outputs for axis in argument.axes} <= {
            axis for argument in card.inputs for axis in argument.axes
        }


def test_every_operator_has_a_priority_list_with_costs(operator: Operator) -> None:
    assert operator.priority
    for axes, dtype, pass_ in operator.priority:
        assert dtype in operator.dtypes
        card = operator.passes[pass_]
        assert card.nbytes(axes, dtype) > 0
        assert card.flops(axes) >= 0 and card.exps(axes) >= 0


def test_every_stress_input_of_a_card_exists(operator: Operator) -> None:
    from ulproof.impls._backends.stress import CATALOGUE

    assert set(operator.stress) <= set(CATALOGUE)


def test_a_card_names_what_there_is(implementation: Implementation) -> None:
    operator = implementation.operator
    assert implementation.backend in BACKENDS
    assert set(implementation.passes) <= set(operator.passes)
    assert set(implementation.dtypes) <= set(operator.dtypes) <= set(ITEMSIZE)
    for pass_, dtype in implementation.bound or {}:
        assert pass_ in implementation.passes, pass_
        assert dtype in operator.dtypes, dtype
    for axes, dtype, pass_ in operator.priority:
        if implementation.refuses(pass_, axes, dtype) is None and implementation.moved:
            assert implementation.moved(pass_, axes, dtype) >= operator.passes[pass_].nbytes(axes, dtype)


@pytest.mark.parametrize("target", TARGETS)
def test_what_cannot_run_says_why(implementation: Implementation, target: str) -> None:
    reason = implementation.unavailable(target)
    assert reason is None or len(reason.split()) >= 3, reason
    if target.startswith("cuda") and not probe.gpus():
        assert reason
        with pytest.raises(RuntimeError, match="can't run here"):
            implementation.bind((), (), target=target)


def test_looking_everything_up_imports_no_toolchain(python: Callable[..., str]) -> None:
    loaded = json.loads(
        python(
            "import json, sys\n"
            "from ulproof.impls import implementations, operators\n"
            "listed = [i.unavailable(t) for o in operators() for i in implementations(o) for t in ('cpu', 'cuda:0')]\n"
            "assert listed\n"
            "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
        )
    )
    assert not set(loaded) & set(HEAVY)


def test_listing_on_the_command_line_imports_no_toolchain(python: Callable[..., str]) -> None:
    printed = python(
        "import json, sys\n"
        "from ulproof.benchmarks.cli import main\n"
        "try:\n    code = main(['list'])\n"
        "except SystemExit as leaving:\n    code = leaving.code\n"
        "assert not code, code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    assert "softmax" in printed
    assert not set(json.loads(printed.splitlines()[-1])) & set(HEAVY)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown operator 'sofmax'.*softmax"):
        load("sofmax")
    with pytest.raises(ValueError, match="unknown implementation 'simd/none'.*numpy/"):
        load("softmax")["simd/none"]


def _imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_implementations_import_no_sibling_and_nothing_absolute_of_ours(root: Path) -> None:
    backends = {implementation.module or implementation.backend for implementation in EVERY} - {"reference"}
    wrong = []
    for path in sorted((root / "impls").rglob("*.py")):
        for node in _imports(path):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                first = (node.module or "").partition(".")[0]
                sibling = {first} if node.module else set(modules)
                if node.level == 1 and path.parent.name[0] != "_" and path.stem in backends and sibling & backends:
                    wrong.append(f"{path.relative_to(root)} imports a sibling, {sibling & backends}")
                modules = [first] if node.level == 0 else []
            if {module.partition(".")[0] for module in modules} & {"ulproof", "impls", "benchmarks", "reports"}:
                wrong.append(f"{path.relative_to(root)}:{node.lineno} imports {modules}; relative imports only")
    assert not wrong


def test_reports_know_records_and_not_how_they_were_measured(root: Path) -> None:
    wrong = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted((root / "reports").rglob("*.py"))
        for node in _imports(path)
        if isinstance(node, ast.ImportFrom)
        and "benchmarks" in (node.module or "").split(".")
        and not (node.module or "").endswith("benchmarks.record")
    ]
    assert not wrong
