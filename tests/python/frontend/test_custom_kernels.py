"""Kernels of the user's own (kiln.register_kernel): operators that Kiln does not know, inside engines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eager import check
from models_small import compile_all, engines_of
from torch._higher_order_ops.while_loop import while_loop

import kiln
import torch_tensorrt
from torch_tensorrt.dynamo import convert_exported_program_to_serialized_trt_engine

OPERATORS = """
import numpy as np, torch, kiln

@torch.library.custom_op("kilntest::scaled_sine", mutates_args=())
def scaled_sine(x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
    return torch.sin(x) * scale

@scaled_sine.register_fake
def _(x, scale=2.0):
    return torch.empty_like(x)
"""
KERNEL = """
def scaled_sine_kernel(inputs, outputs, arguments):
    outputs[0][...] = np.sin(inputs[0]) * arguments["scale"]

kiln.register_kernel("kilntest::scaled_sine", scaled_sine_kernel)
"""
exec(OPERATORS + KERNEL)

scaled_sine = torch.ops.kilntest.scaled_sine
Arrays = Sequence[np.ndarray]


@torch.library.custom_op("kilntest::arguments", mutates_args=())
def arguments(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    others: list[torch.Tensor],
    sizes: list[int],
    factors: list[float],
    mode: str = "plain",
    flag: bool = False,
    dtype: torch.dtype | None = None,
    limit: float = 1.0,
    count: int = 3,
) -> torch.Tensor:
    return x + sum(others) + (0 if bias is None else bias)


@arguments.register_fake
def _(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kilntest::split", mutates_args=())
def split(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.clamp(min=0), (x < 0).sum(-1)


@split.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.int64)


@torch.library.custom_op("kilntest::fails", mutates_args=())
def fails(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@fails.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kilntest::absent", mutates_args=())
def absent(x: torch.Tensor) -> torch.Tensor:
    return x.exp()


@absent.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kilntest::bump", mutates_args={"x"})
def bump(x: torch.Tensor, by: float) -> torch.Tensor:
    return x.add_(by).sum()


@bump.register_fake
def _(x: torch.Tensor, by: float) -> torch.Tensor:
    return x.new_empty(())


seen: list[dict[str, Any]] = []


def arguments_kernel(inputs: Arrays, outputs: Arrays, given: dict[str, Any]) -> None:
    seen.append(given)
    outputs[0][...] = sum(inputs)


def split_kernel(inputs: Arrays, outputs: Arrays, given: dict[str, Any]) -> None:
    assert given == {} and not inputs[0].flags.writeable
    outputs[0][...] = inputs[0].clip(min=0)
    outputs[1][...] = (inputs[0] < 0).sum(-1)


def fails_kernel(inputs: Arrays, outputs: Arrays, given: dict[str, Any]) -> None:
    if inputs[0].min() < 0:
        raise ValueError("got a negative number")
    outputs[0][...] = inputs[0]


def bump_kernel(inputs: Arrays, outputs: Arrays, given: dict[str, Any]) -> None:
    inputs[0][...] += given["by"]
    outputs[0][...] = inputs[0].sum()


kiln.register_kernel("kilntest::arguments", arguments_kernel)
kiln.register_kernel("kilntest::bump", bump_kernel)
kiln.register_kernel("kilntest::split", split_kernel)
kiln.register_kernel("kilntest::fails", fails_kernel)


class Function(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


class Chain(torch.nn.Module):
    """The operator between layers, of a view that is not dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 12), torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x)).reshape(-1, 4, 3).transpose(1, 2)
        y = scaled_sine(y * 2, 0.5) + 1
        return self.second(torch.tanh(y)).sum(1)


def compile_whole(model: torch.nn.Module, *args: Any, shapes: Any = None, **options: Any) -> Any:
    """In one engine."""
    program = torch.export.export(model.eval(), args, dynamic_shapes=shapes, strict=False)
    options = {"min_block_size": 1, "require_full_compilation": True} | options
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=list(args), **options)
    assert len(engines_of(compiled)) == 1 and not own_operators_of(compiled)
    return compiled


def own_operators_of(compiled: torch.fx.GraphModule) -> list[str]:
    """The operators of this file that a compiled module still runs in PyTorch."""
    calls = [node for node in compiled.graph.nodes if node.op == "call_function"]
    return [str(node.target) for node in calls if str(node.target).startswith("kilntest")]


def changers_of(compiled: torch.fx.GraphModule) -> list[str]:
    """The operators that a compiled module runs in PyTorch, and that change their arguments."""
    calls = [node for node in compiled.graph.nodes if node.op == "call_function"]
    return [str(node.target) for node in calls if "auto_functionalized" in str(node.target)]


X = torch.randn(4, 6)

FUNCTIONS = {
    "alone": lambda x: scaled_sine(x, 3.0),
    "of a default": lambda x: scaled_sine(x),
    "of a transposed input": lambda x: scaled_sine(x.t(), 3.0),
    "of every second row": lambda x: scaled_sine(x[::2], 3.0),
    "of reversed columns": lambda x: scaled_sine(x.flip(1), 3.0),
    "of an expanded row": lambda x: scaled_sine(x[:1].expand(4, 6), 3.0),
    "of a reshaped input, reshaped": lambda x: scaled_sine(x.reshape(2, 12), 3.0).reshape(8, 3),
    "transposed": lambda x: scaled_sine(x, 3.0).t(),
    "twice the same": lambda x: scaled_sine(x, 3.0) - scaled_sine(x, 3.0),
    "of itself": lambda x: scaled_sine(scaled_sine(x, 3.0), 2.0),
    "used twice": lambda x: (lambda y: (y + 1, y.t() @ y, y))(scaled_sine(x, 3.0)),
    "beside its input": lambda x: (x, scaled_sine(x, 3.0), x + 1),
    "in a chain": lambda x: torch.exp(scaled_sine(x * 2 + 1, 0.5) - 1).softmax(-1),
    "after a product": lambda x: scaled_sine(x @ x.t(), 0.5).relu(),
    "in a concatenation": lambda x: torch.cat([x, scaled_sine(x, 3.0), x + 1], 1),
    "of a constant": lambda x: x + scaled_sine(torch.arange(6.0), 3.0),
    "of a scalar": lambda x: scaled_sine(x.sum(), 3.0),
    "of nothing": lambda x: scaled_sine(x[:0], 3.0),
    "two results": lambda x: split(x * 2),
    "one of two results": lambda x: split(x)[1],
    "results unused": lambda x: (split(x), x + 1)[1],
    "of f64": lambda x: scaled_sine(x.double(), 3.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_part_of_an_engine(name: str) -> None:
    model = Function(FUNCTIONS[name])
    check(compile_whole(model, X), model, X)


@pytest.mark.parametrize("name", ["alone", "in a chain", "of a transposed input", "two results"])
def test_sizes_may_vary(name: str) -> None:
    model = Function(FUNCTIONS[name])
    batch = torch.export.Dim("batch", min=0, max=64)
    compiled = compile_whole(model, X, shapes=(({0: batch},),))
    for rows in (4, 0, 1, 64, 7):
        check(compiled, model, torch.randn(rows, 6))


def test_between_layers() -> None:
    model, x = Chain().eval(), torch.randn(5, 16)
    check(compile_whole(model, x), model, x)


def test_bfloat16_comes_as_bits() -> None:
    kinds = []

    @torch.library.custom_op("kilntest::same", mutates_args=())
    def same(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @same.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    def kernel(inputs: Arrays, outputs: Arrays, given: dict[str, Any]) -> None:
        kinds.append(type(inputs[0]))
        outputs[0][...] = inputs[0]

    kiln.register_kernel("kilntest::same", kernel)
    model = Function(lambda x: same(x))
    check(compile_whole(model, X.bfloat16()), model, X.bfloat16())
    assert kinds == [kiln.BFloat16Array]
    for dtype in (torch.float16, torch.int8, torch.uint8, torch.int16, torch.int64, torch.bool):
        check(compile_whole(model, X.to(dtype)), model, X.to(dtype))


def test_arguments_have_their_names() -> None:
    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return arguments(
            x,
            None,
            [y, x],
            [1, -2],
            [0.5, 2.0],
            'a "b"',
            flag=True,
            dtype=torch.half,
            limit=float("inf"),
        )

    model = Function(forward)
    compiled = compile_whole(model, X, X + 1)
    seen.clear()
    check(compiled, model, X, X + 1)
    assert seen == [
        {
            "bias": None,
            "others": [1, 2],
            "sizes": [1, -2],
            "factors": [0.5, 2.0],
            "mode": 'a "b"',
            "flag": True,
            "dtype": "float16",
            "limit": "inf",
            "count": 3,
        }
    ]
    assert list(seen[0])[:3] == ["bias", "others", "sizes"]
    with_bias = Function(lambda x, y: arguments(x, y, [x], [], []))
    compiled = compile_whole(with_bias, X, X + 1)
    seen.clear()
    check(compiled, with_bias, X, X + 1)
    assert "bias" not in seen[0] and seen[0]["others"] == [2] and seen[0]["sizes"] == []


def test_exceptions_end_the_run_and_no_more() -> None:
    compiled = compile_whole(Function(lambda x: fails(x) + 1), X.abs())
    with pytest.raises(
        RuntimeError,
        match=r"\[kilntest::fails\] the kernel failed: ValueError: got a negative number",
    ):
        compiled(-X.abs())
    torch.testing.assert_close(compiled(X.abs()), X.abs() + 1)


def test_kernels_that_fail_have_an_exception_of_their_own() -> None:
    session = kiln.load(engine_of(Function(lambda x: fails(x) + 1), X)).session()
    with pytest.raises(kiln.KernelFailedError, match="got a negative number"):
        session.run(np.full((4, 6), -1, np.float32))


def engine_of(model: torch.nn.Module, *args: torch.Tensor) -> Any:
    program = torch.export.export(model.eval(), args, strict=False)
    return convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=list(args), min_block_size=1
    )


def test_operators_without_a_kernel_stay_in_pytorch() -> None:
    model = Function(lambda x: absent(x + 1) * 2)
    compiled = compile_all(model, X)
    assert own_operators_of(compiled) == ["kilntest.absent.default"]
    check(compiled, model, X)


def test_operators_that_are_named_stay_in_pytorch() -> None:
    model = Function(lambda x: scaled_sine(x + 1, 2.0) * 2)
    compiled = compile_all(model, X, torch_executed_ops={torch.ops.kilntest.scaled_sine.default})
    assert own_operators_of(compiled) == ["kilntest.scaled_sine.default"]
    check(compiled, model, X)


def test_operators_that_change_their_arguments(tmp_path: Path) -> None:
    def changing(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * 2
        return bump(y, 1.5), y

    model = Function(changing)
    compiled = compile_all(model, X)
    assert len(own_operators_of(compiled)) + len(changers_of(compiled)) == 1
    check(compiled, model, X)
    # An archive does not say that the operator changes anything.
    path = tmp_path / "changing.pt2"
    torch.export.save(torch.export.export(model, (X,)), path)
    session = kiln.load(kiln.compile(path)).session()
    with pytest.raises(kiln.KernelFailedError, match="read-only"):
        session.run(X.numpy())


def test_in_branches_and_loops() -> None:
    def branch(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(
            x.sum() > 0, lambda x: scaled_sine(x, 2.0), lambda x: fails(x.abs()) + 1, (x,)
        )

    def loop(x: torch.Tensor, n: torch.Tensor) -> Any:
        return while_loop(lambda n, x: n > 0, lambda n, x: (n - 1, scaled_sine(x, 1.5)), (n, x))

    model = Function(branch)
    compiled = compile_whole(model, X)
    for x in (X.abs(), -X.abs()):
        check(compiled, model, x)
    model = Function(loop)
    compiled = compile_whole(model, X, torch.tensor(2))
    for steps in (0, 1, 5):
        check(compiled, model, X, torch.tensor(steps))


def test_threads_run_one_engine() -> None:
    engine = kiln.load(engine_of(Function(lambda x: scaled_sine(x, 2.0)), X))
    wrong: list[int] = []

    def work(index: int) -> None:
        session = engine.session()
        for step in range(20):
            x = np.full((4, 6), index + step, np.float32)
            if not np.allclose(session.run(x)[0], np.sin(x) * 2, atol=1e-5):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_names() -> None:
    assert kiln.has_kernel("kilntest::scaled_sine") and not kiln.has_kernel("kilntest::absent")
    kiln.register_kernel("kilntest::split", split_kernel)
    with pytest.raises(kiln.InvalidArgumentError, match="got another kernel for kilntest::split"):
        kiln.register_kernel("kilntest::split", fails_kernel)
    with pytest.raises(kiln.InvalidArgumentError, match="expected a namespace and an operator"):
        kiln.register_kernel("split", split_kernel)
    with pytest.raises(kiln.NotFoundError):
        kiln.load_kernels("/no/such/kernels.so")
    with pytest.raises(kiln.InvalidArgumentError, match="kiln_kernels"):
        kiln.load_kernels("libm.so.6")


def test_new_weights() -> None:
    torch.manual_seed(1)
    model, new, x = Chain().eval(), Chain().eval(), torch.randn(5, 16)
    compiled = compile_whole(model, x)
    program = torch.export.export(new, (x,), strict=False)
    refitted = torch_tensorrt.dynamo.refit_module_weights(compiled, program)
    check(refitted, new, x)


def test_engines_come_from_a_cache(tmp_path: Path) -> None:
    options = {
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        "engine_cache_dir": str(tmp_path),
    }
    model, x = Chain().eval(), torch.randn(5, 16)
    check(compile_whole(model, x, **options), model, x)
    kept = {path: path.stat().st_ino for path in tmp_path.glob("*.kiln")}
    check(compile_whole(model, x, **options), model, x)
    assert kept and kept == {path: path.stat().st_ino for path in tmp_path.glob("*.kiln")}


RUN = """
import sys, numpy as np, torch
{prepare}
x = torch.load(sys.argv[2])
{load}
torch.testing.assert_close(torch.as_tensor(np.asarray(y)), torch.load(sys.argv[3]))
"""
FORMATS = {".ep": "exported_program", ".ts": "torchscript", ".pt2": "aot_inductor"}
LOADERS = {
    "m.ep": "import torch_tensorrt\ny = torch_tensorrt.load(sys.argv[1]).module()(x)",
    "m.ts": "import torch_tensorrt\ny = torch_tensorrt.load(sys.argv[1])(x)",
    "m.pt2": "y = torch._inductor.aoti_load_package(sys.argv[1])(x)",
    "m.kiln": "import kiln\ny = kiln.load(sys.argv[1]).session().run(x.numpy())[0]",
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("prepared", [True, False])
def test_saved_models_run_where_the_kernel_is(tmp_path: Path, name: str, prepared: bool) -> None:
    model, x, path = Chain().eval(), torch.randn(5, 16), tmp_path / name
    if name.endswith(".kiln"):
        path.write_bytes(bytes(engine_of(model, x)))
    else:
        compiled = compile_whole(model, x)
        torch_tensorrt.save(compiled, path, output_format=FORMATS[path.suffix], arg_inputs=[x])
    torch.save(x, tmp_path / "x.pt")
    torch.save(model(x).detach(), tmp_path / "y.pt")
    code = RUN.format(prepare="import kiln" + KERNEL if prepared else "", load=LOADERS[name])
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "x.pt", tmp_path / "y.pt"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if prepared:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert "needs a kernel for kilntest::scaled_sine" in done.stderr
