"""Tensors of dtypes that engines lack: what touches them stays in PyTorch, everything else is in engines."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest
import torch

import torch_tensorrt
from torch_tensorrt._operator import DTYPE_NAMES, execute_engine
from torch_tensorrt.formats import aoti

_ROWS = (3, 4)


def _is_usable(dtype: torch.dtype) -> bool:
    """Whether PyTorch itself can convert to a dtype and back, and export that."""
    try:
        torch.export.export(_Between(dtype), (torch.ones(_ROWS),))
        _Between(dtype)(torch.ones(_ROWS))
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


class _Between(torch.nn.Module):
    """Engine, a tensor of the dtype, engine."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (torch.relu(x) + 1).to(self.dtype)
        return torch.relu(y.to(torch.float32) * 2) - 1


class _Result(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(x) + 1
        return y, y.to(self.dtype)


class _Input(torch.nn.Module):
    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2 + other.to(torch.float32)


class _Constant(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(_ROWS).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2 + self.table.to(torch.float32)


_ALL = sorted({each for each in vars(torch).values() if isinstance(each, torch.dtype)}, key=str)
OTHERS = [dtype for dtype in _ALL if dtype not in DTYPE_NAMES and _is_usable(dtype)]


def engines(module: torch.fx.GraphModule) -> int:
    return len(module.graph.find_nodes(op="call_function", target=execute_engine))


def compile_module(module: torch.nn.Module, *args: torch.Tensor) -> torch.fx.GraphModule:
    program = torch.export.export(module.eval(), args)
    return torch_tensorrt.dynamo.compile(program, arg_inputs=args, min_block_size=1)


def test_the_dtypes_are_there() -> None:
    assert {torch.uint16, torch.uint32, torch.uint64, torch.complex64} <= set(OTHERS)
    assert torch.float8_e5m2 in OTHERS and torch.float8_e4m3fn not in OTHERS


def as_numbers(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.complex128 if value.dtype.is_complex else torch.float64)


def check(module: torch.nn.Module, dtype: torch.dtype, least_engines: int) -> None:
    args = [torch.randn(_ROWS)]
    if isinstance(module, _Input):
        args.append(torch.ones(_ROWS).to(dtype))
    compiled = compile_module(module, *args)
    assert engines(compiled) >= least_engines
    got, expected = compiled(*args), module(*args)
    if isinstance(got, torch.Tensor):
        got, expected = (got,), (expected,)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(as_numbers(mine), as_numbers(theirs))


@pytest.mark.parametrize("dtype", OTHERS, ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values", "ignore:.*ComplexHalf")
def test_dtypes_of_pytorch_alone(dtype: torch.dtype) -> None:
    # complex32 is not computed with.
    in_engines = dtype in (torch.complex64, torch.complex128)
    check(_Between(dtype), dtype, 1 if in_engines else 2)
    check(_Result(dtype), dtype, 1)
    check(_Input(), dtype, 1)
    check(_Constant(dtype), dtype, 1)


# ---- Saving ----

FORMATS = {"exported_program": ".ep", "torchscript": ".ts", "aot_inductor": ".pt2"}
SAVED = [torch.uint16, torch.complex64, torch.float8_e5m2]


def check_saving(dtype: torch.dtype, output_format: str, folder: Path) -> None:
    x = torch.randn(_ROWS)
    module = _Result(dtype)
    path = folder / f"model{FORMATS[output_format]}"
    torch_tensorrt.save(
        compile_module(module, x), path, arg_inputs=[x], output_format=output_format
    )
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if output_format == "exported_program" else loaded
    for mine, theirs in zip(loaded(x), module(x), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(as_numbers(mine), as_numbers(theirs))


@pytest.mark.parametrize("output_format", ["exported_program", "torchscript"])
@pytest.mark.parametrize("dtype", SAVED, ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_saving(dtype: torch.dtype, output_format: str, tmp_path) -> None:
    check_saving(dtype, output_format, tmp_path)


@pytest.mark.skipif(not aoti.package.has_compiler({}), reason="there is no C++ compiler")
def test_packages_with_compiled_code(tmp_path) -> None:
    check_saving(torch.uint16, "aot_inductor", tmp_path)


@pytest.mark.parametrize("dtype", SAVED, ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_packages_without_compiled_code(dtype: torch.dtype, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    if torch.__version__ >= (2, 12):
        check_saving(dtype, "aot_inductor", tmp_path)
        return
    with pytest.raises(
        RuntimeError, match=r"executor of torch 2.11\S* takes its dtype for another"
    ):
        check_saving(dtype, "aot_inductor", tmp_path)
    assert not list(tmp_path.iterdir())


def test_hash_tensor() -> None:
    """Its result is of torch.uint64, which the schema of torch.export lacks."""
    if not hasattr(torch, "hash_tensor"):
        pytest.skip(f"torch {torch.__version__} has no hash_tensor")

    class Hash(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.hash_tensor(x), torch.relu(x) + 1

    x = torch.randn(_ROWS)
    compiled = compile_module(Hash(), x)
    assert engines(compiled) == 1
    for mine, theirs in zip(compiled(x), Hash()(x), strict=True):
        assert mine.dtype == theirs.dtype and bool((mine == theirs).all())


# ---- Dtypes that the exporter has wrong ----


class _Statistics(torch.nn.Module):
    """Training norms whose statistics are computed with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        for name, value in (("weight", 1.5), ("bias", 0.5), ("mean", 0.1), ("var", 2.0)):
            self.register_buffer(name, torch.full((4,), value, dtype=dtype))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = torch.ops.aten._native_batch_norm_legit_functional(
            torch.relu(x), self.weight, self.bias, self.mean, self.var, True, 0.1, 1e-5
        )
        return tuple(torch.relu(each) * 2 for each in results)


@pytest.mark.parametrize("parameters", [None, torch.float32], ids=["same", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_statistics_of_training_norms(dtype: torch.dtype, parameters: torch.dtype | None) -> None:
    module = _Statistics(parameters or dtype)
    x = torch.randn(3, 4, 5).to(dtype)
    compiled = compile_module(module, x)
    assert engines(compiled) >= 1
    if dtype == torch.float32:  # nothing is wrong there, and nothing stays in PyTorch for it
        operators = {node.target for node in compiled.graph.nodes if node.op == "call_function"}
        assert torch.ops.aten.relu.default not in operators - {operator.getitem}
    for mine, theirs in zip(compiled(x), module(x), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)
