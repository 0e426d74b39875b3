"""stub to be completed"""
from __future__ import annotations
from dataclasses import dataclass
from typing import Any, Literal
import math
import torch
from torch import Tensor
from tensornet.observed import Observed, observe, every_entry, every_sample
from tensornet.shape import Shape
from tensornet.sweep import Rules
from tensornet.reverse import evaluate
Pooling = Literal["product", "max", "mean"]
Activation = Literal["relu"] | None

@dataclass(frozen=True)
class Combination:
    pooling: Pooling = "product"
    activation: Activation = None

def combination(pooling="product", activation=None):
    return Combination(pooling, activation)

BUDGET={torch.float64:120, torch.float32:15, torch.bfloat16:15, torch.float16:2, torch.complex64:15, torch.complex128:120}

def _result(values, exponents, last, log):
    if values.shape[1]==1:
        values=values.squeeze(1)
    elif exponents is not None:
        exponents=exponents.unsqueeze(1)
    if last is not None:
        values=values.index_select(0,last)
        exponents = None if exponents is None else exponents.index_select(0,last)
    if log:
        size=values.abs().log()
        return values.sgn(), size if exponents is None else size+exponents.to(size.dtype)*math.log(2)
    if exponents is None: return values
    for part in (exponents//3, exponents//3, exponents-2*(exponents//3)):
        values=torch.ldexp(values, part.clamp(-126,126))
    return values

def _rules(c,w,log): return Rules(c.pooling,c.activation,0 if log else BUDGET[w[0].dtype])

def entries(shape, weights, indices, *, combination=Combination(), log=False):
    o = indices if isinstance(indices, Observed) else observe(shape, indices, weights[0].device)
    v,e=evaluate(o.stages,weights,(),_rules(combination,weights,log))
    return _result(v,e, o.last, log)

def forward(shape, weights, inputs, *, combination=Combination(), log=False):
    if isinstance(inputs, Tensor): inputs=inputs.unbind(1)
    v,e=evaluate(every_sample(shape,len(inputs[0]),inputs[0].device),weights,inputs,_rules(combination,weights,log))
    return _result(v,e, None, log)
