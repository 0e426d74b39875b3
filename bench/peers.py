"""Which peers run which tasks."""

from __future__ import annotations

from bench import dense, levelwise
from bench.contestants import Prepare
from bench.workloads import Task

NETWORK: dict[str, Prepare] = {
    "opt_einsum expression": dense.opt_einsum_expression,
    "opt_einsum contract": dense.opt_einsum_contract,
    "cotengra": dense.cotengra,
    "torch.einsum": dense.torch_einsum,
}
PEERS: dict[Task, dict[str, Prepare]] = {
    "end": NETWORK | {"bottom-up": dense.bottom_up},
    "entries": {
        "tensap": levelwise.tensap,
        "level-wise one-hot": levelwise.levelwise_einsum,
        "level-wise gather": levelwise.levelwise_gather,
        "node-wise gather": levelwise.nodewise,
        **NETWORK,
    },
    "network": {"tensap": levelwise.tensap, "level-wise einsum": levelwise.levelwise_einsum, "node-wise": levelwise.nodewise, **NETWORK},
    "step": {
        "opt_einsum expression": dense.opt_einsum_expression,
        "cotengra": dense.cotengra,
        "bottom-up": dense.bottom_up,
        "level-wise one-hot": levelwise.levelwise_einsum,
        "level-wise gather": levelwise.levelwise_gather,
        "node-wise gather": levelwise.nodewise,
    },
}
RIVALS: dict[Task, tuple[str, ...]] = {  # the peers that the project's goals are stated against
    "end": tuple(NETWORK),
    "entries": ("tensap", "level-wise one-hot"),
    "network": ("tensap", "level-wise einsum"),
    "step": ("opt_einsum expression", "cotengra"),
}
