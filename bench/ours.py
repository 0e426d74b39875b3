"""tensornet's own ways to do a workload; the first of a task is the one that peers and floors are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bench.contestants import Contestant, Function, Prepare, UnavailableError, prepare, with_loss
from bench.dense import gather
from bench.hardware import Limits
from bench.workloads import Case, Task
from tensornet import HTF, capture, observe
from tensornet.dynamics.losses import Loss
from tensornet.dynamics.objective import Objective
from tensornet.dynamics.observations import Entries
from tensornet.dynamics.problems import Problem


def contract(case: Case, limits: Limits) -> Contestant:
    """``htf.contract()``, and for a training step the loss of what is gathered from it."""
    del limits
    htf = _factorization(case)
    return _contestant("tensornet contract", case, htf, gather(case, htf.contract), htf.plan().flops)


def contract_out(case: Case, limits: Limits) -> Contestant:
    """``htf.contract(out=...)``, always into the same memory."""
    del limits
    if case.workload.backward:
        raise UnavailableError("no gradients through out=")
    htf = _factorization(case)
    out = torch.empty(case.workload.mode_sizes, dtype=case.weights[0].dtype, device=case.weights[0].device)
    return _contestant("tensornet contract(out=)", case, htf, lambda: htf.contract(out=out))


def entries(case: Case, limits: Limits) -> Contestant:
    """``htf.entries(indices)``."""
    del limits
    htf = _factorization(case)
    return _contestant("tensornet entries", case, htf, with_loss(case, lambda: htf.entries(case.indices)))


def entries_observed(case: Case, limits: Limits) -> Contestant:
    """``htf.entries(observed)`` with what ``observe`` made of the indices beforehand, as in a training loop."""
    del limits
    htf = _factorization(case)
    observed = observe(htf.shape, case.indices)
    return _contestant("tensornet entries(observed)", case, htf, with_loss(case, lambda: htf.entries(observed)))


def forward(case: Case, limits: Limits) -> Contestant:
    """``htf(inputs)``."""
    del limits
    htf = _factorization(case)
    return _contestant("tensornet forward", case, htf, lambda: htf(case.inputs))


def objective(case: Case, limits: Limits) -> Contestant:
    """The objective of ``tensornet.dynamics``, as ``tensornet dynamics`` trains by, without the optimizer's step."""
    del limits
    workload, indices, targets = case.workload, case.indices, case.targets
    assert indices is not None
    assert targets is not None
    htf = _factorization(case)
    places = torch.as_tensor(np.ravel_multi_index(indices.T.cpu().numpy(), workload.mode_sizes), device=indices.device)
    problem = Problem(targets, Entries(workload.mode_sizes, places), targets)
    trained = Objective(htf, problem, Loss())

    def run() -> Sequence[Tensor]:
        return (trained.backward(), *(cast(Tensor, weight.grad) for weight in htf.weight_list()))

    return Contestant("tensornet objective", run, _same)


def captured(maker: Prepare) -> Prepare:
    """The same as a CUDA graph, gradients included."""

    def make(case: Case, limits: Limits) -> Contestant:
        if case.weights[0].device.type != "cuda":
            raise UnavailableError("CUDA only")
        plain = maker(case, limits)
        try:
            return replace(plain, name=f"{plain.name}, captured", run=capture(lambda: tuple(plain.run())))
        except RuntimeError as error:
            raise UnavailableError(f"cannot be captured: {str(error).splitlines()[0]}") from error

    return make


OURS: dict[Task, dict[str, Prepare]] = {
    "end": {
        "tensornet contract": contract,
        "tensornet contract(out=)": contract_out,
        "tensornet contract, captured": captured(contract),
    },
    "entries": {
        "tensornet entries": entries,
        "tensornet entries(observed)": entries_observed,
        "tensornet entries(observed), captured": captured(entries_observed),
    },
    "network": {"tensornet forward": forward, "tensornet forward, captured": captured(forward)},
    "step": {
        "tensornet objective": objective,
        "tensornet objective, captured": captured(objective),
        "tensornet entries(observed)": entries_observed,
        "tensornet entries(observed), captured": captured(entries_observed),
        "tensornet entries": entries,
        "tensornet contract": contract,
    },
}


def _factorization(case: Case) -> HTF:
    return HTF.from_weights(case.tree, dict(zip(case.tree.nodes, case.weights))).requires_grad_(case.workload.backward)


def _contestant(name: str, case: Case, htf: HTF, function: Function, flops: int | None = None) -> Contestant:
    return prepare(name, case, lambda *_: function(), list(htf.weights.values()), _same, flops=flops)


def _same(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    return gradients
