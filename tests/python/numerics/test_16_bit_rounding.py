"""When results in f16 and bf16 are rounded: casts always, every operator with `emulate_precision_casts`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eager import Table, assert_as_eager, difference
from torch.nn import functional

import kiln
import torch_tensorrt

HALVES = [torch.float16, torch.bfloat16]


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """a: about 3; b: about 1; c: a row of positive numbers; x: f32."""
    a, b = (torch.randn(64, 48) * 3).to(dtype), torch.randn(64, 48).to(dtype)
    return a, b, torch.rand(48).to(dtype) + 0.1, torch.randn(64, 48)


def whole(x: torch.Tensor) -> torch.Tensor:
    """Integers: sums of their products are exact in any order."""
    return (x * 4).round()


# Right in both modes: each ends in a cast, or has one inside.
CASTS: Table = {
    "product": lambda a, b, c, x: (a * b).float(),
    "sum": lambda a, b, c, x: (a + b - a).float() * 0 + (a + b).float(),
    "double": lambda a, b, c, x: (a * b).double(),
    "other half": lambda a, b, c, x: (a * b).to(_other(a.dtype)).float(),
    "integer": lambda a, b, c, x: (a * b * 7).long() * 0 + (a * b).long(),
    "short": lambda a, b, c, x: (a * b).to(torch.int16),
    "bool": lambda a, b, c, x: (a * 1e-5).bool(),
    "there and back": lambda a, b, c, x: x.to(a.dtype).float(),
    "there and back twice": lambda a, b, c, x: (a * b).float().to(a.dtype).float(),
    "rounded, then a sum": lambda a, b, c, x: ((a * b).float().to(a.dtype) + c).float(),
    "f64 there and back": lambda a, b, c, x: (x.double() * 1.1).float().double(),
    "f64 to half": lambda a, b, c, x: (x.double() * 1.1).to(a.dtype),
    "integers and back": lambda a, b, c, x: (x * 9).int().float(),
    "integer, f32, integer": lambda a, b, c, x: ((x * 1e9).long().float()).long(),
    "short, bf16, short": lambda a, b, c, x: (x * 9999).short().bfloat16().short(),
    "of a choice": lambda a, b, c, x: torch.where(a > 0, a * b, c * b).float(),
    "of an extreme": lambda a, b, c, x: torch.maximum(a * b, b * c).float(),
    "of a sign": lambda a, b, c, x: (-(a * b)).abs().float(),
    "of a view": lambda a, b, c, x: (a * b).t()[3:].flip(0).float(),
    "of a join": lambda a, b, c, x: torch.cat([a * b, a + b, a]).float(),
    "promoted": lambda a, b, c, x: (a * b) + x,
    "extreme of products": lambda a, b, c, x: (a * b).amax(1).float(),
    "place of an extreme": lambda a, b, c, x: (a * b).argmax(1),
}

# Several kernels of PyTorch: each rounds.
CHAINS: Table = {
    "multiply and add": lambda a, b, c, x: a * b + c,
    "polynomial": lambda a, b, c, x: ((a * b + c) * a - b) * c + a,
    "there and back": lambda a, b, c, x: a + 1 - 1,
    "quotients": lambda a, b, c, x: a / b / c,
    "comparison": lambda a, b, c, x: (a * b) < (a * c),
    "equality": lambda a, b, c, x: (a + b) - b == a,
    "choice": lambda a, b, c, x: torch.where(a * b > 1, a * b, 0.1) + c,
    "masked": lambda a, b, c, x: (a * b).masked_fill(a > 0, 0.1) * 3,
    "floor of a cosine": lambda a, b, c, x: torch.floor(torch.cos(a * 0.01)),
    "tanhshrink": (lambda a, b, c, x: functional.tanhshrink(a), 1),
    "softsign": lambda a, b, c, x: functional.softsign(a),
    "gated": (lambda a, b, c, x: a * a.sigmoid(), 1),
    "composed GELU": (lambda a, b, c, x: 0.5 * a * (1 + torch.erf(a / 1.4142135)), 1),
    "composed norm": (lambda a, b, c, x: a * torch.rsqrt((a * a).mean(-1, True) + 1e-5) * c, 2),
    "norm in f32": (
        lambda a, b, c, x: c * (a.float() * a.float().pow(2).mean(-1, True).rsqrt()).to(a.dtype),
        1,
    ),
    "share of a sum": (lambda a, b, c, x: c / c.sum(), 1),
    "inverse": lambda a, b, c, x: 3.3 / a,
    "logsumexp": (lambda a, b, c, x: torch.logsumexp(a, 1), 1),
    "sum of products": (lambda a, b, c, x: (a * b).sum(1), 1),
    "softmax of products": (lambda a, b, c, x: (a * b).softmax(1) * c, 1),
    "norm of products": (lambda a, b, c, x: functional.layer_norm(a * b, (48,)), 1),
    "linear and activation": (
        lambda a, b, c, x: functional.relu(functional.linear(whole(a), whole(b))) * 0.3 + 1,
        0,
    ),
    "linear and SiLU": (
        lambda a, b, c, x: functional.silu(functional.linear(whole(a), whole(b), b[:, 0])),
        1,
    ),
    "logit": (lambda a, b, c, x: torch.logit(c.clamp(0.1, 0.9)), 1),
    "xlogy": (lambda a, b, c, x: torch.xlogy(a, c), 1),
    "cross": lambda a, b, c, x: torch.linalg.cross(a[:, :3], b[:, :3]),
    "pool of products": lambda a, b, c, x: functional.max_pool1d((a * b)[None], 3, 2),
}

# One kernel of PyTorch: computed in f32, rounded once. The numbers beside tensors are rounded by some.
KERNELS: Table = {
    "times a number": lambda a, b, c, x: a * 0.1,
    "times a large number": lambda a, b, c, x: a * 1e5,
    "times a scalar tensor": lambda a, b, c, x: a * torch.tensor(0.1, dtype=torch.float64),
    "plus a number": lambda a, b, c, x: a + 0.1,
    "plus a scalar tensor": lambda a, b, c, x: a + torch.tensor(0.1),
    "minus a number": lambda a, b, c, x: a - 0.1,
    "number minus": lambda a, b, c, x: 0.1 - a,
    "by a number": lambda a, b, c, x: a / 3.3,
    "alpha": lambda a, b, c, x: torch.add(a, b, alpha=0.3),
    "alpha of a number": lambda a, b, c, x: torch.add(a, 0.7, alpha=0.3),
    "minus alpha": lambda a, b, c, x: torch.sub(a, b, alpha=0.3),
    "rsub with alpha": lambda a, b, c, x: torch.rsub(a, b, alpha=0.3),
    "compared with a number": lambda a, b, c, x: a < 0.1,
    "div trunc": lambda a, b, c, x: torch.div(a, c, rounding_mode="trunc"),
    "div floor": lambda a, b, c, x: torch.div(a, c, rounding_mode="floor"),
    "div trunc by one element": lambda a, b, c, x: torch.div(
        a[:, :1], torch.full((1, 1), 0.253662109375).to(a.dtype), rounding_mode="trunc"
    ),
    "div trunc of one element": lambda a, b, c, x: torch.div(c[:1], c, rounding_mode="trunc"),
    "div trunc by a number": lambda a, b, c, x: torch.div(a, 0.3, rounding_mode="trunc"),
    "div floor by a number": lambda a, b, c, x: torch.div(a, 0.3, rounding_mode="floor"),
    "floor_divide": lambda a, b, c, x: a // 0.3,
    "remainder": lambda a, b, c, x: torch.remainder(a, 0.3),
    "fmod": lambda a, b, c, x: torch.fmod(a, c),
    "addcmul": lambda a, b, c, x: torch.addcmul(a, b, c, value=0.3),
    "addcdiv": lambda a, b, c, x: torch.addcdiv(a, b, c, value=0.3),
    "lerp": (lambda a, b, c, x: torch.lerp(a, b, 0.3), 1),
    "power 2": lambda a, b, c, x: a**2,
    "power 3": lambda a, b, c, x: a**3,
    "power 0.5": lambda a, b, c, x: c**0.5,
    "power -0.5": lambda a, b, c, x: c**-0.5,
    "power -1": lambda a, b, c, x: a**-1,
    "power -2": lambda a, b, c, x: a**-2,
    "power 1.7": (lambda a, b, c, x: c**1.7, 1),
    "powers": (lambda a, b, c, x: c**b, 1),
    "hypot": lambda a, b, c, x: torch.hypot(a, b),
    "logaddexp": (lambda a, b, c, x: torch.logaddexp(a, b), 1),
    "two decimals": lambda a, b, c, x: torch.round(a, decimals=2),
    "frac": lambda a, b, c, x: a.frac(),
    "exp": (lambda a, b, c, x: a.exp(), 1),
    "rsqrt": (lambda a, b, c, x: c.rsqrt(), 1),
    "silu": (lambda a, b, c, x: functional.silu(a), 1),
    "gelu": (lambda a, b, c, x: functional.gelu(a.clamp_min(-1)), 1),
    "gelu tanh": (lambda a, b, c, x: functional.gelu(a.clamp_min(-1), approximate="tanh"), 1),
    "mish": (lambda a, b, c, x: functional.mish(a), 1),
    "elu": (lambda a, b, c, x: functional.elu(a), 1),
    "celu": (lambda a, b, c, x: functional.celu(a, 0.7), 1),
    "selu": (lambda a, b, c, x: functional.selu(a), 1),
    "softplus": (lambda a, b, c, x: functional.softplus(a), 1),
    "log_sigmoid": (lambda a, b, c, x: functional.logsigmoid(a), 1),
    "glu": (lambda a, b, c, x: functional.glu(a), 1),
    "hardswish": lambda a, b, c, x: functional.hardswish(a),
    "hardsigmoid": lambda a, b, c, x: functional.hardsigmoid(a),
    "leaky_relu": lambda a, b, c, x: functional.leaky_relu(a, 0.1),
    "prelu": lambda a, b, c, x: functional.prelu(a, c),
    "hardshrink": lambda a, b, c, x: functional.hardshrink(a),
    "softshrink": lambda a, b, c, x: functional.softshrink(a),
    "sum": (lambda a, b, c, x: a.sum(1), 1),
    "mean": (lambda a, b, c, x: a.mean(1), 1),
    "large mean": lambda a, b, c, x: (a * 0 + 30000).mean(1),
    "var": (lambda a, b, c, x: a.var(1), 1),
    "std": (lambda a, b, c, x: a.std(1), 1),
    "norm": (lambda a, b, c, x: a.norm(dim=1), 1),
    "norm 3": (lambda a, b, c, x: a.norm(3, dim=1), 1),
    "cumsum": (lambda a, b, c, x: a.cumsum(1), 1),
    "softmax": (lambda a, b, c, x: a.softmax(1), 1),
    "log_softmax": (lambda a, b, c, x: a.log_softmax(1), 1),
    "layer_norm": (lambda a, b, c, x: functional.layer_norm(a, (48,), c, b[0]), 1),
    "rms_norm": (lambda a, b, c, x: functional.rms_norm(a, (48,), c), 1),
    "group_norm": (lambda a, b, c, x: functional.group_norm(a.reshape(8, 8, 48), 4), 1),
    "batch_norm": (lambda a, b, c, x: functional.batch_norm(a, b[0], c, c, b[1]), 1),
    "matmul": lambda a, b, c, x: whole(a) @ whole(b).t(),
    "linear": lambda a, b, c, x: functional.linear(whole(a), whole(b), b[:, 0]),
    "addmm": lambda a, b, c, x: torch.addmm(b[:, 0], whole(a), whole(b).t()),
    "scaled addmm": (
        lambda a, b, c, x: torch.addmm(b[:, 0], whole(a), whole(b).t(), beta=0.3, alpha=0.7),
        1,
    ),
    "baddbmm": (
        lambda a, b, c, x: torch.baddbmm(b[:, :1][None], whole(a)[None], whole(b).t()[None]),
        0,
    ),
    "log_softmax of columns": (lambda a, b, c, x: a.log_softmax(0), 1),
    "avg_pool": (lambda a, b, c, x: functional.avg_pool1d(a[None], 3, 2), 1),
    "linear resize": (
        lambda a, b, c, x: functional.interpolate(a[None], scale_factor=1.7, mode="linear"),
        1,
    ),
    "small bilinear resize": (
        lambda a, b, c, x: functional.interpolate(
            a[None, None, :16], scale_factor=1.7, mode="bilinear"
        ),
        1,
    ),
    "bilinear resize": (
        lambda a, b, c, x: functional.interpolate(a[None, None], scale_factor=1.7, mode="bilinear"),
        1,
    ),
    "bicubic resize": (
        lambda a, b, c, x: functional.interpolate(a[None, None], scale_factor=0.6, mode="bicubic"),
        2,
    ),
}


def _other(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float16 else torch.float16


@pytest.mark.parametrize("emulate", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
def test_casts_round(dtype: torch.dtype, emulate: bool) -> None:
    assert_as_eager(CASTS, inputs(dtype), emulate_precision_casts=emulate)


@pytest.mark.parametrize("table", [CHAINS, KERNELS], ids=["chains", "kernels"])
@pytest.mark.parametrize("dtype", HALVES)
def test_every_operator_rounds_once(dtype: torch.dtype, table: Table) -> None:
    assert_as_eager(table, inputs(dtype), emulate_precision_casts=True)


@pytest.mark.parametrize("dtype", HALVES)
def test_quotients_round_before_they_are_truncated_in_any_case(dtype: torch.dtype) -> None:
    """Within one operator, where another rounding is another integer."""
    table = {name: KERNELS[name] for name in KERNELS if name.startswith(("div", "floor", "rem"))}
    assert_as_eager(table, inputs(dtype), emulate_precision_casts=False)


class Chain(torch.nn.Module):
    """Different from eager unless every operator rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(48, 48, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1 - 1
        return y * 3.3 + torch.nn.functional.linear(y, self.weight) * 0


def chain() -> tuple[Chain, torch.Tensor]:
    return Chain().eval(), torch.randn(16, 48).bfloat16() * 0.1


def names(engine: bytes) -> list[list[str]]:
    description = kiln.inspect(engine)
    return [[tensor["name"] for tensor in description[side]] for side in ("inputs", "outputs")]


@pytest.mark.parametrize("emulate", [False, True])
def test_every_entry_point_takes_the_option(emulate: bool) -> None:
    model, x = chain()
    options: dict[str, Any] = {"emulate_precision_casts": emulate, "min_block_size": 1}
    program = torch.export.export(model, (x,))
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=(x,), emulate_precision_casts=emulate
    )
    modules = {
        "compile": torch_tensorrt.compile(model, arg_inputs=(x,), **options),
        "dynamo.compile": torch_tensorrt.dynamo.compile(program, arg_inputs=(x,), **options),
        "torch.compile": torch.compile(model, backend="torch_tensorrt", options=options),
        "engine": torch_tensorrt.runtime.TorchTensorRTModule(engine, *names(engine)),
        "mutable": torch_tensorrt.MutableTorchTensorRTModule(model, **options),
    }
    assert kiln.inspect(engine)["emulate_precision_casts"] is emulate
    with torch.no_grad():
        equal = {name: torch.equal(module(x), model(x)) for name, module in modules.items()}
    assert equal == dict.fromkeys(modules, emulate)


def test_option_is_part_of_the_key() -> None:
    model, x = chain()
    path_free = torch.export.export(model, (x,))
    from torch_tensorrt.dynamo._program import Program
    from torch_tensorrt.dynamo._region import find_region, region_model

    program = Program.decomposed(path_free)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    kiln_model, _ = region_model(program, find_region(program, nodes))
    keys = {kiln.compile_key(kiln_model, emulate_precision_casts=flag) for flag in (False, True)}
    assert len(keys) == 2


@pytest.mark.parametrize("emulate", [False, True])
def test_refit_plans_the_same(emulate: bool) -> None:
    model, x = chain()
    other = Chain().eval()
    module = torch_tensorrt.dynamo.compile(
        torch.export.export(model, (x,)),
        arg_inputs=(x,),
        min_block_size=1,
        emulate_precision_casts=emulate,
    )
    refitted = torch_tensorrt.dynamo.refit_module_weights(module, torch.export.export(other, (x,)))
    assert torch.equal(refitted(x), other(x)) is emulate
    assert difference(refitted(x).float(), other(x).float()) is None or not emulate


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_next_to_limits(dtype) -> None:
    """0.1 and 0.3 are no numbers of 16 bits: which side of them a number lies on depends on how they are rounded."""
    x = torch.tensor([0.1, 0.3, -0.1, -0.3, 0.0, -0.0, 0.5, torch.inf, -torch.inf, torch.nan])
    x = x.to(dtype)
    end = torch.tensor(torch.inf, dtype=dtype)
    x = torch.cat([x, x.nextafter(end), x.nextafter(-end)])
    table: Table = {
        "threshold": lambda x: functional.threshold(x, 0.1, 2.0),
        "below 0": lambda x: functional.threshold(x, -0.1, 0.3),
        "hardshrink": lambda x: functional.hardshrink(x, 0.1),
        "softshrink": lambda x: functional.softshrink(x, 0.3),
        "hardtanh": lambda x: functional.hardtanh(x, -0.1, 0.3),
        "clamp": lambda x: x.clamp(-0.3, 0.1),
        "gt": lambda x: x > 0.1,
        "eq": lambda x: x == 0.3,
        "masked": lambda x: x.masked_fill(x > 0.1, 0.3),
    }
    assert_as_eager(table, (x,))


def test_filled_tensors_hold_numbers_of_their_dtype() -> None:
    """What is computed with them shows whether they do: 0.5 is 0 as an integer, and true."""
    table: Table = {
        "integers": lambda x, i: torch.full_like(i, 2.7) + 0.5,
        "negative": lambda x, i: torch.full_like(i, -2.7) * x,
        "bool": lambda x, i: torch.full_like(x > 0, 0.5) * x,
        "new": lambda x, i: i.new_full((3,), 1.9) * x,
        "extreme": lambda x, i: torch.fmax(x, torch.full_like(i, 0.5)),
        "dtype": lambda x, i: torch.full((3,), 1.5, dtype=torch.int32) * 1.0,
        "f16": lambda x, i: torch.full((3,), 0.1, dtype=torch.float16).float() + x,
        "bf16": lambda x, i: torch.full((3,), 0.1, dtype=torch.bfloat16) * x,
        "f32": lambda x, i: torch.full((3,), 0.1).double() + x,
        "half": lambda x, i: x.half().new_full((3,), 0.1).double(),
        "nan": lambda x, i: torch.full((3,), torch.nan, dtype=torch.bfloat16).float(),
    }
    assert_as_eager(table, (torch.randn(3), torch.tensor([1, 2, 3])))
