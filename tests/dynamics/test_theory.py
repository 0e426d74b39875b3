"""The paper's statements hold on random cases, and each check reports a failure when the statement or the factorization is wrong."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch

from tensornet.analysis.components import local_component_norms, prune, pruning_bound
from tensornet.dynamics.flow import gradient_flow, velocity
from tensornet.dynamics.theory import evolution, minimal_ranks, motion, network, ranks
from tensornet.dynamics.theory.cases import draw_case
from tensornet.dynamics.theory.records import Check, deviation, tightest
from tensornet.dynamics.theory.statements import STATEMENTS, verify
from tensornet.shape import make_shape
from tensornet.tree import ModeTree

CASES = [draw_case(seed=11, number=number) for number in range(3)]


def failing(checks):
    return {check.claim for check in checks if not check.holds}


def every(statement, cases=CASES):
    """All checks of a statement on some cases."""
    return [check for case in cases for check in statement(case)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_holds(name):
    [checks] = verify([name], cases=3, seed=5)
    assert checks
    assert {check.statement for check in checks} == {name}
    assert not failing(checks)


@pytest.mark.parametrize(("seed", "number"), [(13, 0), (53, 2)])
def test_the_integral_of_theorem_1_follows_flows_that_rest_and_then_jump(seed, number):
    case = draw_case(seed=seed, number=number)
    assert {check.claim for check in evolution.theorem_1(case)} >= {"deviation of its integral over time"}
    assert not failing(evolution.theorem_1(case))


class TestRecords:
    def test_relations(self):
        def check(measured, relation, bound):
            return Check("", "", "", measured, relation, bound)

        assert check(1, "<=", 1).holds
        assert check(1, ">=", 1).holds
        assert check(1, "==", 1).holds
        assert not check(2, "<=", 1).holds
        assert not check(0, ">=", 1).holds
        assert not check(2, "==", 1).holds
        assert not check(0, "==", 1).holds
        assert check(3, ">=", 1).slack == 2
        assert check(3, "<=", 1).slack == -2

    @pytest.mark.parametrize("relation", ["<=", ">=", "=="])
    def test_nan_never_holds(self, relation):
        assert not Check("", "", "", math.nan, relation, 1.0).holds

    def test_the_tightest_is_a_failure_if_there_is_one(self):
        values = [0.999, math.nan, 0.5]
        assert math.isnan(tightest([Check("", "", "", value, "<=", 1.0) for value in values]).measured)

    def test_deviation_of_nan_is_nan(self):
        assert math.isnan(deviation(torch.tensor([math.nan, 1.0]), torch.ones(2)))


class TestCases:
    def test_cases_are_of_all_kinds(self):
        drawn = [draw_case(seed=0, number=number) for number in range(40)]
        assert {case.kind for case in drawn} == {"l2", "huber"}
        arities = {len(below) for case in drawn for below in case.tree.child_ids[case.tree.order :]}
        assert arities == {1, 2, 3, 4}
        crossed = [case for case in drawn if any(list(node) != list(range(node[0], node[-1] + 1)) for node in case.tree.nodes)]
        assert len(crossed) > 10

    def test_another_seed_is_another_case(self):
        assert not torch.equal(draw_case(seed=0, number=0).values, draw_case(seed=1, number=0).values)

    def test_end_tensor_is_the_oracle_s(self):
        for case in CASES:
            weights = {node: weight.numpy() for node, weight in zip(case.tree.nodes, case.weights)}
            np.testing.assert_allclose(
                case.end_tensor(case.weights).numpy(), oracles.end_tensor(case.tree, weights), rtol=1e-12, atol=1e-14
            )

    def test_huber_is_quadratic_for_small_and_linear_for_large_differences(self):
        shape = make_shape(ModeTree.star(1), mode_sizes=2)
        case = dataclasses.replace(CASES[1], shape=shape, indices=torch.tensor([[0], [1]]), values=torch.tensor([0.0, 0.0]), kind="huber")
        assert case.loss(torch.tensor([0.5, 3.0])).item() == pytest.approx((0.5**2 / 2 + 3 - 0.5) / 2)


class TestMotion:
    def test_rates_are_the_derivatives_of_the_norms(self):
        """Against finite differences of another computation of the norms, one small step of gradient descent ahead and back."""
        case = CASES[0]
        rates = motion.motion(case, case.weights)
        step = 1e-5
        speed = velocity(case.objective, case.weights)
        ahead, back = (
            local_component_norms(case.tree, [weight + sign * step * rate for weight, rate in zip(case.weights, speed)]) for sign in (1, -1)
        )
        for node, found in rates.items():
            torch.testing.assert_close(found.rates, (ahead[node] - back[node]) / (2 * step), rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(found.norms, local_component_norms(case.tree, case.weights)[node])
            assert (found.projections.abs() <= found.steepness * (1 + 1e-12)).all()

    def test_a_flow_ends_where_the_loss_has_fallen(self):
        case = CASES[0]
        last = motion.flow(case, case.weights, [0.5, 1.0]).weights[-1]
        fallen = case.objective(last).item() / case.objective(case.weights).item()
        assert fallen == pytest.approx(1 - motion.FALL, abs=0.02)


class TestRanks:
    def test_lemma_1_fails_for_other_tensors(self, monkeypatch):
        monkeypatch.setattr(
            type(CASES[0]), "end_tensor", lambda case, _: torch.from_numpy(case.generator().standard_normal(case.shape.mode_sizes))
        )
        assert failing(every(ranks.lemma_1))

    def test_proposition_1_fails_for_a_smaller_bound(self, monkeypatch):
        monkeypatch.setattr(ranks, "pruning_bound", lambda *given: pruning_bound(*given) / 20)
        assert failing(every(ranks.proposition_1)) == {"distance that pruning moves the end tensor"}

    def test_proposition_1_fails_when_the_wrong_components_are_pruned(self, monkeypatch):
        def smallest(tree, weights, keep):
            norms = local_component_norms(tree, weights)
            return prune(tree, weights, {node: norms[node].argsort()[:count] for node, count in keep.items()})

        monkeypatch.setattr(ranks, "prune", smallest)
        assert failing(every(ranks.proposition_1)) == {"distance that pruning moves the end tensor"}

    def test_proposition_1_fails_when_too_much_is_kept(self, monkeypatch):
        monkeypatch.setattr(ranks, "prune", lambda tree, weights, keep: weights)
        assert "rank of the matricization by a child after pruning" in failing(every(ranks.proposition_1))


class TestProposition2:
    def test_the_two_ranks_are_the_paper_s(self):
        tree = ModeTree.perfect(4)
        first, second = (minimal_ranks._ranks(minimal_ranks._completed((2, 3, 2, 2), free), tree) for free in minimal_ranks.SOLUTIONS)
        assert first == (1, 2, 1, 2, 2, 2)  # of modes 0 to 3, (0, 1) and (2, 3); the paper's modes N-2, N-1, N are 1, 2, 3
        assert second == (1, 1, 2, 2, 1, 1)

    @pytest.mark.parametrize("free", [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)])
    def test_fails_for_a_solution_that_is_not_minimal(self, monkeypatch, free):
        monkeypatch.setattr(minimal_ranks, "SOLUTIONS", (free, minimal_ranks.SOLUTIONS[1]))
        assert "solutions found with a smaller rank" in failing(every(minimal_ranks.proposition_2))

    def test_fails_for_two_comparable_solutions(self, monkeypatch):
        monkeypatch.setattr(minimal_ranks, "SOLUTIONS", (minimal_ranks.SOLUTIONS[0],) * 2)
        assert failing(every(minimal_ranks.proposition_2)) == {"nodes at which either rank is the larger"}

    def test_fails_for_other_observations(self, monkeypatch):
        monkeypatch.setattr(minimal_ranks, "OBSERVED", {**minimal_ranks.OBSERVED, (1, 1, 1): 0.0})
        assert failing(every(minimal_ranks.proposition_2)) >= {
            "solutions found with a smaller rank",
            "error of the certificate that there is none",
        }


class TestNetwork:
    @pytest.fixture
    def wrong_weight(self, monkeypatch):
        right = network.forward

        def wrong(shape, weights, inputs):
            return right(shape, [weights[0] + 1e-6, *weights[1:]], inputs)

        monkeypatch.setattr(network, "forward", wrong)

    def test_proposition_3_fails_for_a_wrong_weight(self, wrong_weight):
        assert all(not check.holds for check in every(network.proposition_3))

    def test_proposition_4_fails_for_a_wrong_weight(self, wrong_weight):
        assert "deviation of outputs from so many separated terms" in failing(every(network.proposition_4))

    def test_proposition_4_fails_for_a_network_of_larger_rank(self, monkeypatch):
        right = network.forward
        monkeypatch.setattr(
            network,
            "forward",
            lambda shape, weights, inputs: right(shape, weights, inputs) + 1e-3 * torch.stack([x.sum(1) for x in inputs]).sum(0) ** 4,
        )
        assert failing(every(network.proposition_4)) == {"separation rank on a grid", "deviation of outputs from so many separated terms"}


class TestEvolution:
    @pytest.fixture
    def uneven_speed(self, monkeypatch):
        """The first leaf's weight learns a little faster than the others."""
        monkeypatch.setattr(motion, "velocity", lambda given, weights: _faster(velocity(given, weights)))
        monkeypatch.setattr(motion, "gradient_flow", _uneven_flow)

    def test_lemma_2_fails_for_unequal_learning_rates(self, uneven_speed):
        assert len(failing(every(evolution.lemma_2))) == 2

    def test_theorem_1_fails_from_an_unbalanced_start(self, monkeypatch):
        monkeypatch.setattr(evolution, "balanced", lambda tree, weights: list(weights))
        assert len(failing(every(evolution.theorem_1))) == 3

    def test_theorem_1_fails_for_another_power(self, monkeypatch):
        monkeypatch.setattr(evolution, "_equation_6", lambda node: node.norms ** (2 - 1 / node.vectors) * node.vectors * node.projections)
        assert len(failing(every(evolution.theorem_1))) == 3

    @pytest.mark.parametrize("share", [0.0, 0.05])
    def test_theorem_2_fails_above_with_too_small_an_unbalancedness(self, monkeypatch, share):
        true = evolution.unbalancedness
        monkeypatch.setattr(evolution, "unbalancedness", lambda tree, weights: share * true(tree, weights))
        assert {claim.partition("bound ")[2] for claim in failing(every(evolution.theorem_2))} == {"with a power of L - 1"}

    def test_theorem_2_fails_below_for_a_larger_bound(self, monkeypatch):
        """With no unbalancedness at all the lower bounds still hold, by the means of the squared norms; so it is made negative."""
        true = evolution.unbalancedness
        monkeypatch.setattr(evolution, "unbalancedness", lambda tree, weights: -true(tree, weights) / 2)
        assert len(failing(every(evolution.theorem_2))) == 4

    def test_equation_7_fails_for_a_larger_constant(self, monkeypatch):
        right = evolution._beside_equation_7
        monkeypatch.setattr(
            evolution, "_beside_equation_7", lambda moments, alpha, norms, pair: right(moments, alpha, (1.1 * norms[0], norms[1]), pair)
        )
        assert failing(every(evolution.equation_7, CASES[:1])) == {"smaller component beside its bound"}

    def test_equation_7_fails_when_the_smaller_component_grows_faster(self):
        """With norms 2 and 1 of L = 3 weight vectors each, the bound is 1 at the start, and 1.5 when the larger has grown to 4."""
        bound = 1 / (1 - 2 ** (-1 / 3) + 4 ** (-1 / 3)) ** 3
        for share in (0.99, 1.01):
            moments = [
                motion.Motion(torch.tensor([[size ** (2 / 3)] * 3 for size in sizes]), torch.zeros(2, 3), torch.tensor([2.0, 1.0]), 2.0)
                for sizes in ((2.0, 1.0), (4.0, share * bound))
            ]
            assert evolution._beside_equation_7(moments, 1.0, (2.0, 1.0), (0, 1)) == [pytest.approx(share, rel=1e-6)]

    def test_equation_7_assumes_that_the_larger_is_as_well_aligned(self):
        norms = torch.ones(2, 3)
        moments = [motion.Motion(norms, norms, torch.tensor([larger, 1.0]), 2.0) for larger in (2.0, 1.0, 0.5, 2.0)]
        assert len(evolution._beside_equation_7(moments, 0.5, (2.0, 1.0), (0, 1))) == 1


def _faster(rates):
    return (1.01 * rates[0], *rates[1:])


def _uneven_flow(objective, weights, times, *, rtol, atol):
    """Gradient flow in which the first weight moves 1.01 times as fast: the flow of rescaled coordinates."""
    factor = 1.01**0.5
    flow = gradient_flow(
        lambda scaled: objective([factor * scaled[0], *scaled[1:]]), [weights[0] / factor, *weights[1:]], times, rtol=rtol, atol=atol
    )
    return dataclasses.replace(flow, weights=tuple((factor * moment[0], *moment[1:]) for moment in flow.weights))


class TestVerify:
    def test_the_same_seed_gives_the_same_numbers_whatever_else_is_checked(self):
        [alone] = verify(["proposition-4"], cases=2, seed=3)
        *_, together = verify(["proposition-3", "proposition-4"], cases=2, seed=3)
        assert alone == together

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match=r"a statement is one of lemma-1, .*; got 'lemma-9'"):
            next(verify(["lemma-9"]))
        with pytest.raises(ValueError, match="cases must be at least 1; got 0"):
            next(verify(cases=0))
