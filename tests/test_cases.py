"""The drivers' table agrees with the cards, both ways."""

from __future__ import annotations

import pytest

from ulproof.benchmarks.cases import CASES, Case
from ulproof.impls import load, operators


def test_every_operator_has_a_case_and_every_case_an_operator() -> None:
    assert set(CASES) == set(operators())


@pytest.fixture(params=CASES, ids=str)
def named(request: pytest.FixtureRequest) -> tuple[str, Case]:
    return request.param, CASES[request.param]


def test_a_case_names_what_the_card_has(named: tuple[str, Case]) -> None:
    name, case = named
    operator = operators()[name]
    assert set(case.implementations) <= set(load(name))
    assert set(case.dtypes) <= set(operator.dtypes)
    assert set(case.passes) <= set(operator.passes)
    assert len(set(case.implementations)) == len(case.implementations)


def test_every_backend_that_can_be_timed_is_followed(named: tuple[str, Case]) -> None:
    name, case = named
    backends = {implementation.backend for implementation in load(name).values()} - {"reference"}
    assert {implementation.partition("/")[0] for implementation in case.implementations} == backends


def test_shapes_give_every_axis_of_the_card(named: tuple[str, Case]) -> None:
    name, case = named
    operator = operators()[name]
    for shape in case.shapes:
        axes = case.axes_of(shape)
        for pass_ in case.passes:
            card = operator.passes[pass_]
            assert all(argument.shape(axes) for argument in card.inputs)


def test_targets_are_the_implementations_own(named: tuple[str, Case]) -> None:
    name, case = named
    for implementation in case.implementations:
        kinds = {target.partition(":")[0] for target in case.targets(implementation)}
        assert kinds <= set(load(name)[implementation].targets), implementation


def test_a_shape_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError):
        CASES["softmax"].axes_of("3x4x5")
