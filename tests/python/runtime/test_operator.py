"""The operator kiln::execute_engine: registration, caching of engines, threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import torch
from models_small import Mlp, batch_input, compile_all

from torch_tensorrt._operator import execute_engine


@pytest.fixture
def compiled(mlp):
    return compile_all(mlp, batch_input())


def spec_of(compiled: torch.fx.GraphModule) -> str:
    return compiled.graph.find_nodes(op="call_function", target=execute_engine)[0].args[2]


def test_opcheck(compiled) -> None:
    torch.library.opcheck(
        execute_engine, ([torch.randn(3, 16)], compiled.engine_0, spec_of(compiled))
    )


def test_the_spec_of_an_engine(compiled) -> None:
    assert spec_of(compiled) == "f32[i0_0,8]"


def test_engines_of_garbage(compiled) -> None:
    x = torch.randn(3, 16)
    bad = {
        "empty": torch.empty(0, dtype=torch.uint8),
        "zeros": torch.zeros(4096, dtype=torch.uint8),
        "truncated": compiled.engine_0[:-1].clone(),
    }
    for engine in bad.values():
        with pytest.raises(RuntimeError, match=r"\w{4}"):
            execute_engine([x], engine, "f32[i0_0,8]")
    for engine in (
        compiled.engine_0.to(torch.int8),
        compiled.engine_0[::2],
        compiled.engine_0[None],
    ):
        with pytest.raises(RuntimeError, match="contiguous one-dimensional uint8"):
            execute_engine([x], engine, "f32[i0_0,8]")


def test_memory_that_is_used_again(assert_same) -> None:
    """An engine that is overwritten with another one must not run as the old one."""
    x = torch.randn(3, 16)
    models = [Mlp().eval(), Mlp().eval()]
    engines = [compile_all(model, x).engine_0 for model in models]
    assert engines[0].shape == engines[1].shape
    place = engines[0].clone()
    for index in (0, 1, 0):
        place.copy_(engines[index])
        (result,) = execute_engine([x], place, "f32[3,8]")
        assert_same(result, models[index](x))


def test_modules_come_and_go(assert_same) -> None:
    for _ in range(5):
        model = Mlp().eval()
        compiled = compile_all(model, batch_input())
        x = torch.randn(3, 16)
        assert_same(compiled(x), model(x))
        del compiled
        gc.collect()


START = """
import gc, sys, threading, torch
import torch_tensorrt
from models_small import Mlp, batch_input
from torch_tensorrt._operator import execute_engine
from torch_tensorrt.runtime import TorchTensorRTModule
x = torch.randn(3, 16)
engine = torch_tensorrt.convert_method_to_trt_engine(Mlp().eval(), arg_inputs=[batch_input()])
"""


def loads_of(setup: str, calls: str) -> int:
    """How many engines the calls load, by the runtime's log."""
    done = subprocess.run(
        [sys.executable, "-c", f"{START}{setup}\nprint('CALLS', file=sys.stderr)\n{calls}"],
        capture_output=True,
        text=True,
        env={**os.environ, "KILN_LOG": "info", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.partition("CALLS")[2].count('loaded the engine "')


def test_engines_of_living_modules_are_loaded_once() -> None:
    setup = "modules = [TorchTensorRTModule(engine) for _ in range(100)]"
    calls = "for _ in range(3):\n  for module in modules: module(x)"
    assert loads_of(setup, calls) == 100


def test_engines_that_nobody_holds_are_dropped_in_the_end() -> None:
    setup = "engine = torch.frombuffer(bytearray(engine), dtype=torch.uint8)\n"
    setup += "engines = [engine.clone() for _ in range(100)]"
    calls = "for _ in range(2):\n  for each in engines: execute_engine([x], each, 'f32[i0_0,8]')"
    assert loads_of(setup, calls) == 200


def test_an_engine_goes_with_the_last_module_that_has_it() -> None:
    setup = "engine = torch.frombuffer(bytearray(engine), dtype=torch.uint8).clone()\n"
    setup += "first, second, third = (TorchTensorRTModule(engine) for _ in range(3))"
    shared = "first(x)\ndel first\ngc.collect()\nsecond(x)\ndel second\ngc.collect()\nthird(x)\n"
    assert loads_of(setup, shared) == 1
    gone = "del third\ngc.collect()\nexecute_engine([x], engine, 'f32[i0_0,8]')"
    assert loads_of(setup, shared + gone) == 2


def test_threads_load_an_engine_once() -> None:
    calls = "threads = [threading.Thread(target=module, args=(x,)) for _ in range(8)]\n"
    calls += "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
    assert loads_of("module = TorchTensorRTModule(engine)", calls) == 1


def test_what_cannot_be_loaded_is_tried_again(compiled, assert_same, mlp) -> None:
    place = torch.zeros_like(compiled.engine_0)
    x = torch.randn(3, 16)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not a Kiln engine"):
            execute_engine([x], place, "f32[i0_0,8]")
    place.copy_(compiled.engine_0)
    assert_same(execute_engine([x], place, "f32[i0_0,8]")[0], mlp(x))


def test_a_view_of_an_unaligned_engine(mlp, compiled, assert_same) -> None:
    buffer = torch.empty(compiled.engine_0.numel() + 1, dtype=torch.uint8)
    engine = buffer[1:]
    engine.copy_(compiled.engine_0)
    x = torch.randn(3, 16)
    assert_same(execute_engine([x], engine, "f32[i0_0,8]")[0], mlp(x))


def test_many_threads_share_an_engine(mlp, compiled, assert_same_on_threads) -> None:
    assert_same_on_threads(compiled, mlp)


def test_the_number_of_threads_may_change(mlp, compiled, assert_same) -> None:
    x = torch.randn(3, 16)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            assert_same(compiled(x), mlp(x))
    finally:
        torch.set_num_threads(before)


class Prepares(torch.nn.Module):
    """Kernels that copy, transform or pack what they read before they multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.tiles = torch.nn.Conv2d(64, 64, 3, padding=1)
        self.rows = torch.nn.Conv2d(64, 64, 3, padding=1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.rows(self.tiles(x)).flatten(2)
        attended = torch.nn.functional.scaled_dot_product_attention(z, z, z)
        return attended @ z.transpose(1, 2)


def test_calls_do_not_use_what_earlier_ones_prepared() -> None:
    torch.manual_seed(0)
    module = Prepares().eval()
    compiled = compile_all(module, torch.randn(1, 64, 24, 24))
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 8):
            torch.set_num_threads(threads)
            for _ in range(3):
                x = torch.randn(1, 64, 24, 24)
                with torch.no_grad():
                    expected = module(x)
                assert (compiled(x) - expected).norm() <= 1e-5 * expected.norm()
    finally:
        torch.set_num_threads(before)


def test_results_are_fresh(compiled) -> None:
    x = torch.randn(3, 16)
    first = compiled(x)
    copy = first.clone()
    compiled(torch.randn(3, 16))
    assert torch.equal(first, copy)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_modules_can_be_copied_traced_and_exported(mlp, compiled, assert_same) -> None:
    import copy

    x = torch.randn(3, 16)
    assert_same(copy.deepcopy(compiled)(x), mlp(x))
    assert_same(torch.jit.trace(compiled, x)(x), mlp(x))
    program = torch.export.export(compiled, (x,), strict=False)
    assert_same(program.run_decompositions().module()(x), mlp(x))
