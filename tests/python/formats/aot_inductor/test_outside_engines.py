"""Packages of graphs with operators outside engines, with a C++ compiler and without."""

from __future__ import annotations

import logging
import shutil
import zipfile
from functools import partial
from typing import Any

import pytest
import torch
from models_small import Counter, SortInTheMiddle, batch_input, compile_all, unsupported

import torch_tensorrt
from torch_tensorrt.formats import aoti


@pytest.fixture
def no_compiler(monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)


needs_compiler = pytest.mark.skipif(
    not aoti.package.has_compiler({}), reason="there is no C++ compiler"
)


def export_and_load(module: torch.nn.Module, path: Any, *inputs: Any, **options: Any) -> Any:
    """A package of a module as it is, without engines."""
    program = torch.export.export(module.eval(), inputs, strict=False, **options)
    torch_tensorrt.save(program, path, output_format="aot_inductor")
    return torch_tensorrt.load(path)


class ManyKinds(torch.nn.Module):
    """Arguments of every kind: lists, sizes, numbers, dtypes, optional ones; several results; constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.5, 2, 8))
        self.conv = torch.nn.Conv1d(4, 6, 3, padding=1)
        self.norm = torch.nn.LayerNorm(8)
        self.words = torch.nn.Embedding(10, 5, padding_idx=0)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = x.shape[0]
        first, second, third = torch.split(self.conv(x), 2, dim=1)
        values, places = torch.sort(first * self.scale, dim=-1, descending=True)
        joined = torch.cat([second, third], dim=1).reshape(batch * 2, -1)
        picked = joined[index]
        counted = torch.arange(batch, dtype=torch.float64) / 3
        clamped = torch.clamp(values, min=-0.5)
        whole = torch.full((batch, 3), 2, dtype=torch.int32)
        total = x.sum(dim=(1, 2), dtype=torch.float64).to(torch.bfloat16) + batch
        normal = self.norm(torch.nn.functional.pad(x[..., 1:], (0, 1), value=2.0))
        larger = torch.nn.functional.interpolate(normal[None], scale_factor=2.0, mode="bilinear")
        mask = torch.where(x > 0, x, 1.5).softmax(-1)
        return clamped, places, picked, counted, whole, total, larger, mask, self.words(index)


@pytest.mark.usefixtures("no_compiler")
class TestWithoutCompiler:
    @pytest.mark.parametrize("retrace", [True, False])
    def test_engines_around_an_operator(self, tmp_path, assert_same, refused, retrace) -> None:
        model = SortInTheMiddle().eval()
        torch_tensorrt.save(
            compile_all(model, batch_input()),
            tmp_path / "m.pt2",
            arg_inputs=[batch_input()],
            output_format="aot_inductor",
            retrace=retrace,
        )
        loaded = torch_tensorrt.load(tmp_path / "m.pt2")
        for batch in (1, 3, 32):
            x = torch.randn(batch, 16)
            assert_same(loaded(x), model(x))
        with refused('input "x" dim 0: got 33, expected 1..32'):
            loaded(torch.randn(33, 16))

    @pytest.mark.skipif(
        torch.__version__ < (2, 12), reason=f"torch {torch.__version__} takes dtypes for others"
    )
    def test_arguments_of_every_kind(self, tmp_path, assert_same, refused) -> None:
        model = ManyKinds()
        batch = torch.export.Dim("batch", min=2, max=9)
        shapes = ({0: batch}, None)
        inputs = (torch.randn(3, 4, 8), torch.tensor([0, 2]))
        loaded = export_and_load(model, tmp_path / "m.pt2", *inputs, dynamic_shapes=shapes)
        for rows in (2, 3, 9):
            x = torch.randn(rows, 4, 8)
            assert_same(loaded(x, inputs[1]), model(x, inputs[1]))
        with refused('input "x" dim 0: got 10, expected 2..9'):
            loaded(torch.randn(10, 4, 8), inputs[1])

    def test_versions_that_misread_dtypes(self, tmp_path, capfd) -> None:
        """The package says which version it needs, and its container refuses older ones."""

        class Whole(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.sort(-1).values.to(torch.int32)

        program = torch.export.export(Whole(), (torch.randn(2, 3),))
        save = partial(torch_tensorrt.save, program, output_format="aot_inductor")
        if torch.__version__ < (2, 12):
            with pytest.raises(RuntimeError, match="takes its dtype for another"):
                save(tmp_path / "m.pt2")
            return
        save(tmp_path / "m.pt2")
        x = torch.randn(2, 3)
        loaded = torch_tensorrt.load(tmp_path / "m.pt2")
        assert loaded(x).dtype == torch.int32
        with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
            archive.extractall(tmp_path / "old")
        text = tmp_path / "old" / "m" / "data/aotinductor/model/program.kiln.txt"
        assert "\nneeds_torch 2 12\n" in text.read_text()
        text.write_text(text.read_text().replace("needs_torch 2 12", "needs_torch 9 1"))
        with pytest.raises(ValueError, match="cannot be loaded"):
            torch_tensorrt.load(tmp_path / "old")
        assert "expected 9.1 or newer" in capfd.readouterr().err

    def test_constants_that_are_results(self, tmp_path, assert_same) -> None:
        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.randn(3, 4))

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return self.weight.T, x + self.weight

        model, x = Model(), torch.randn(3, 4)
        loaded = export_and_load(model, tmp_path / "m.pt2", x)
        with torch.no_grad():
            loaded(x)[0].zero_()
            assert_same(loaded(x), model(x))

    def test_state_outside_engines_needs_a_compiler(self, tmp_path) -> None:
        x = torch.randn(2, 16)
        options = {"torch_executed_ops": {"aten.add.Tensor"}}
        with pytest.raises(RuntimeError, match=r"(?s)no C\+\+ compiler .*changes calls in place"):
            torch_tensorrt.save(
                compile_all(Counter().eval(), x, **options),
                tmp_path / "m.pt2",
                arg_inputs=[x],
                output_format="aot_inductor",
            )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("arguments", [{}, {"arg_inputs": [torch.randn(2, 16)]}])
    def test_state_that_engines_change_needs_none(self, tmp_path, assert_same, arguments) -> None:
        model, x = Counter().eval(), torch.randn(2, 16)
        compiled = compile_all(Counter().eval(), x)
        torch_tensorrt.save(compiled, tmp_path / "m.pt2", output_format="aot_inductor", **arguments)
        first, second = (torch_tensorrt.load(tmp_path / "m.pt2") for _ in range(2))
        for _ in range(3):
            assert_same(first(x), model(x))
        assert_same(second(x), Counter()(x))  # has a state of its own
        with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
            archive.extractall(tmp_path / "other")
        text = tmp_path / "other" / "m" / "data/aotinductor/model/program.kiln.txt"
        assert "\nstate f32 0 1\n" in text.read_text()
        text.write_text(text.read_text().replace("\nstate f32 ", "\nconstant f32 "))
        with pytest.raises(ValueError, match="cannot be loaded"):
            torch_tensorrt.load(tmp_path / "other")

    def test_sizes_that_depend_on_values_need_a_compiler(self, tmp_path) -> None:
        class Model(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found = torch.nonzero(x)
                return found.new_ones(found.shape[0], 2)

        with pytest.raises(RuntimeError, match=r"(?s)no C\+\+ compiler .*depends on the values"):
            export_and_load(Model(), tmp_path / "m.pt2", torch.ones(4))

    def test_operators_of_others_need_a_compiler(self, tmp_path) -> None:
        @torch.library.custom_op("kiln_test::twice", mutates_args=())
        def twice(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        twice.register_fake(torch.empty_like)

        class Model(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return twice(x)

        with pytest.raises(
            RuntimeError, match=r"kiln_test.twice.*not an operator of PyTorch's own"
        ):
            export_and_load(Model(), tmp_path / "m.pt2", torch.ones(4))


class Everything(torch.nn.Module):
    """Engines around operators, state, an input that is written to, and one that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.before = torch.nn.Linear(16, 16)
        self.after = torch.nn.Linear(16, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(
        self, x: torch.Tensor, seen: torch.Tensor, unused: torch.Tensor
    ) -> dict[str, torch.Tensor | None]:
        self.calls += 1
        y = unsupported(torch.relu(self.before(x)) + seen)
        seen.add_(1)
        return {"y": torch.tanh(self.after(y)), "calls": self.calls * 1, "nothing": None}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Any:
    torch.manual_seed(0)
    model = Everything().eval()
    path = tmp_path_factory.mktemp("package") / "m.pt2"
    batch = torch.export.Dim("batch", min=1, max=32)
    inputs = (torch.randn(4, 16), torch.randn(4, 16), torch.randn(4, 3))
    program = torch.export.export(model, inputs, dynamic_shapes=({0: batch},) * 3, strict=False)
    left = {"torch.ops.aten.sort.default"}
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, min_block_size=1, torch_executed_ops=left
    )
    torch_tensorrt.save(
        compiled, path, arg_inputs=inputs, output_format="aot_inductor", retrace=False
    )
    return path, model


@needs_compiler
class TestWithCompiler:
    def test_results_and_state(self, package, assert_same) -> None:
        path, model = package
        loaded = torch_tensorrt.load(path)
        for call in (loaded, torch._inductor.aoti_load_package(str(path))):
            model.calls.zero_()
            for batch in (1, 3, 32):
                x, seen = torch.randn(batch, 16), torch.randn(batch, 16)
                mine, theirs = seen.clone(), seen.clone()
                with torch.no_grad():
                    expected = model(x, theirs, torch.ones(batch, 3))
                assert_same(call(x, mine, torch.ones(batch, 3)), expected)
                assert_same(mine, theirs)

    def test_wrong_inputs(self, package, refused) -> None:
        loaded = torch_tensorrt.load(package[0])

        def call(*shapes: tuple[int, ...]) -> None:
            loaded(*(torch.randn(shape) for shape in shapes))

        with refused('input "x" dim 0: got 33, expected 1..32'):
            call((33, 16), (33, 16), (33, 3))
        with refused('input "seen" dim 0: got 3, expected 2'):
            call((2, 16), (3, 16), (2, 3))
        with refused('input "unused" dim 1: got 4, expected 3'):
            call((2, 16), (2, 16), (2, 4))
        with refused('input "seen": got rank 3, expected 2'):
            call((2, 16), (2, 16, 1), (2, 3))

    def test_strided_inputs(self, package, assert_same) -> None:
        path, model = package
        loaded = torch_tensorrt.load(path)
        model.calls.zero_()
        x, storage = torch.randn(16, 5).T, torch.randn(16, 5)
        expected_storage = storage.clone()
        unused = torch.ones(5, 3)
        with torch.no_grad():
            expected = model(x, expected_storage.T, unused)
        assert_same(loaded(x, storage.T, unused), expected)
        assert_same(storage, expected_storage)

    def test_engines_lie_beside_the_compiled_code(self, package) -> None:
        with zipfile.ZipFile(package[0]) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        assert {"engine_0.kiln", "engine_1.kiln", "model.so.1"} <= set(names)


@pytest.fixture
def static_compiler(tmp_path) -> str:
    """g++ as it is where the system has its standard library as an archive only."""
    path = tmp_path / "compiler" / "g++"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\ncase " $* " in *" -shared "*) exec g++ "$@" -static-libstdc++ ;; esac\nexec g++ "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


@needs_compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_compilers_without_a_shared_standard_library(
    tmp_path, static_compiler, assert_same, caplog
) -> None:
    """PyTorch crashes when it loads what they make: operators are called one by one, or the save fails."""
    model = SortInTheMiddle().eval()
    compiled = compile_all(model, batch_input())
    options = {"output_format": "aot_inductor", "inductor_configs": {"cpp.cxx": static_compiler}}
    with caplog.at_level(logging.WARNING):
        torch_tensorrt.save(compiled, tmp_path / "m.pt2", arg_inputs=[batch_input()], **options)
    assert "links its standard library statically" in caplog.text
    x = torch.randn(3, 16)
    assert_same(torch_tensorrt.load(tmp_path / "m.pt2")(x), model(x))
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        assert not [name for name in archive.namelist() if name.endswith("model.so.1")]


def test_what_needs_a_compiler_says_what_is_wrong_with_it(tmp_path, monkeypatch) -> None:
    library = tmp_path / "model.so"
    library.write_bytes(b"\x7fELF\0libm.so.6\0libc.so.6\0libstdcxx\0")
    with pytest.raises(aoti.compile.StaticRuntimeError, match="libstdc"):
        aoti.compile.check_runtime(library)

    def fail(*_: Any) -> None:
        aoti.compile.check_runtime(library)

    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: True)
    monkeypatch.setattr(aoti.package, "compile_program", fail)

    class ValuesDecide(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0]

    program = torch.export.export(ValuesDecide(), (torch.randn(4),))
    with pytest.raises(RuntimeError, match=r"(?s)links its standard library statically.*libstdc"):
        torch_tensorrt.save(program, tmp_path / "m.pt2", output_format="aot_inductor")
    assert not (tmp_path / "m.pt2").exists()
    library.write_bytes(b"\x7fELF\0libstdc++.so.6\0")
    aoti.compile.check_runtime(library)
