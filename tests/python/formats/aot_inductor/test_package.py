"""Packages whose graphs are all engines: nothing is compiled when they are saved."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from typing import Any

import pytest
import torch
from models_small import (
    KeywordArguments,
    NestedInputs,
    NestedResults,
    batch_input,
    compile_all,
)

import torch_tensorrt
from torch_tensorrt.formats import aoti

MODEL = "m/data/aotinductor/model"


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch) -> None:
    """No package of these tests may need one."""

    def fail(*_: Any) -> None:
        raise AssertionError("a compiler was asked for")

    monkeypatch.setattr(aoti.package, "has_compiler", fail)


def save(module: Any, path: Any, *inputs: Any, **arguments: Any) -> None:
    torch_tensorrt.save(
        module, path, arg_inputs=list(inputs), output_format="aot_inductor", **arguments
    )


def round_trip(module: torch.nn.Module, path: Any, *inputs: Any, **arguments: Any) -> Any:
    compiled = compile_all(module, *inputs, kwarg_inputs=arguments.get("kwarg_inputs"))
    save(compiled, path, *inputs, **arguments)
    return torch_tensorrt.load(path)


retraces = pytest.mark.parametrize("retrace", [True, False])


@retraces
def test_static_shapes(mlp, tmp_path, assert_same, retrace) -> None:
    x = torch.randn(4, 16)
    loaded = round_trip(mlp, tmp_path / "m.pt2", x, retrace=retrace)
    with torch.no_grad():
        expected = mlp(x)
    assert_same(loaded(x), expected)
    assert_same(loaded.module()(x), expected)
    assert_same(torch._inductor.aoti_load_package(str(tmp_path / "m.pt2"))(x), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


@retraces
def test_dynamic_shapes(mlp, tmp_path, assert_same, retrace) -> None:
    loaded = round_trip(mlp, tmp_path / "m.pt2", batch_input(), retrace=retrace)
    for batch in (1, 2, 7, 32):
        x = torch.randn(batch, 16)
        assert_same(loaded(x), mlp(x))


@retraces
def test_keyword_inputs(tmp_path, assert_same, retrace) -> None:
    model = KeywordArguments().eval()
    x, named = torch.randn(3, 4), {"shift": torch.randn(3, 1), "scale": torch.randn(4)}
    loaded = round_trip(model, tmp_path / "m.pt2", x, kwarg_inputs=named, retrace=retrace)
    assert_same(loaded(x, **named), model(x, **named))
    assert_same(loaded(x, scale=named["scale"], shift=named["shift"]), model(x, **named))
    plain = torch._inductor.aoti_load_package(str(tmp_path / "m.pt2"))
    assert_same(plain(x, **named), model(x, **named))


@retraces
def test_nested_inputs(tmp_path, assert_same, retrace) -> None:
    model = NestedInputs().eval()
    inputs = ([torch.randn(3, 4), torch.randn(3, 4)], {"bias": torch.randn(4)})
    loaded = round_trip(model, tmp_path / "m.pt2", *inputs, retrace=retrace)
    assert_same(loaded(*inputs), model(*inputs))


@retraces
def test_nested_results(tmp_path, assert_same, retrace) -> None:
    """Several results, one twice, one an input, one None."""
    model = NestedResults().eval()
    rows = torch_tensorrt.Input(min_shape=(1, 4), opt_shape=(2, 4), max_shape=(8, 4), name="x")
    loaded = round_trip(model, tmp_path / "m.pt2", rows, retrace=retrace)
    x = torch.randn(3, 4)
    assert_same(loaded(x), model(x))
    assert_same(torch._inductor.aoti_load_package(str(tmp_path / "m.pt2"))(x), model(x))


class Edges(torch.nn.Module):
    """Results in another order than the engine's, one twice, a constant; an input that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3))

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, z = torch.tanh(x), x * 2 + 1
        return z, y, z, self.table


def test_results_in_any_order(tmp_path, assert_same) -> None:
    model = Edges().eval()
    x, unused = torch.randn(4), torch.randn(2, 5)
    loaded = round_trip(model, tmp_path / "m.pt2", x, unused)
    results = loaded(x, unused)
    assert_same(results, model(x, unused))
    results[3].zero_()  # the caller's own copy
    assert_same(loaded(x, unused), model(x, unused))


def test_inputs_that_reach_no_engine_are_checked(tmp_path, refused) -> None:
    loaded = round_trip(Edges().eval(), tmp_path / "m.pt2", torch.randn(4), torch.randn(2, 5))
    with refused('input "unused" dim 1: got 6, expected 5'):
        loaded(torch.randn(4), torch.randn(2, 6))
    with refused('input "unused": got dtype i64, expected f32'):
        loaded(torch.randn(4), torch.zeros(2, 5, dtype=torch.int64))


class Relations(torch.nn.Module):
    """Sizes that depend on each other."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x]) + y if x.shape[0] < y.shape[0] else x + torch.cat([y, y])


@pytest.mark.parametrize("first_is_larger", [False, True])
def test_sizes_that_depend_on_each_other_are_checked(
    tmp_path, assert_same, refused, first_is_larger
) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    order = slice(None, None, -1 if first_is_larger else 1)
    inputs = (torch.randn(3, 2), torch.randn(6, 2))[order]
    program = torch.export.export(
        Relations(), inputs, dynamic_shapes=({0: batch}, {0: 2 * batch})[order], strict=False
    )
    compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, min_block_size=1)
    save(compiled, tmp_path / "m.pt2", *inputs, retrace=False)
    loaded = torch_tensorrt.load(tmp_path / "m.pt2")
    for rows in (1, 5, 8):
        inputs = (torch.randn(rows, 2), torch.randn(2 * rows, 2))[order]
        assert_same(loaded(*inputs), Relations()(*inputs))
    name = "x" if first_is_larger else "y"
    with refused(f'input "{name}" dim 0: got 9, expected 8'):
        loaded(*(torch.randn(4, 2), torch.randn(9, 2))[order])


def test_wrong_inputs(mlp, tmp_path, refused) -> None:
    loaded = round_trip(mlp, tmp_path / "m.pt2", batch_input())
    plain = torch._inductor.aoti_load_package(str(tmp_path / "m.pt2"))
    for call in (loaded, plain):
        with refused('input "x" dim 0: got 33, expected 1..32'):
            call(torch.randn(33, 16))
        with refused('input "x": got rank 3, expected 2'):
            call(torch.randn(2, 16, 1))
        with refused('input "x": got dtype f16, expected f32'):
            call(torch.randn(2, 16).half())
        with refused('input "x" is not in CPU memory'):
            call(torch.randn(2, 16, device="meta"))
    with pytest.raises(TypeError, match="got 2 inputs by position, expected 1"):
        loaded(torch.randn(2, 16), torch.randn(2, 16))
    with refused("got 2 input tensors, expected 1"):
        plain(torch.randn(2, 16), torch.randn(2, 16))
    assert loaded(torch.randn(2, 16)).shape == (2, 8)  # it still works


def test_strided_inputs(mlp, tmp_path, assert_same) -> None:
    loaded = round_trip(mlp, tmp_path / "m.pt2", batch_input())
    wide = torch.randn(16, 10)
    assert_same(loaded(wide.T[1:8:2]), mlp(wide.T[1:8:2]))


def test_many_threads(mlp, tmp_path, assert_same_on_threads) -> None:
    loaded = round_trip(mlp, tmp_path / "m.pt2", batch_input())
    assert_same_on_threads(loaded, mlp)


def test_results_do_not_record_gradients(mlp, tmp_path) -> None:
    loaded = round_trip(mlp, tmp_path / "m.pt2", torch.randn(2, 16))
    assert not loaded(torch.randn(2, 16, requires_grad=True)).requires_grad


def test_folders_that_packages_were_unpacked_to(mlp, tmp_path, assert_same) -> None:
    x = torch.randn(2, 16)
    round_trip(mlp, tmp_path / "m.pt2", x)
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        archive.extractall(tmp_path / "unpacked")
    for folder in (tmp_path / "unpacked", tmp_path / "unpacked" / "m"):
        assert_same(torch_tensorrt.load(folder)(x), mlp(x))


def test_the_archive(mlp, tmp_path) -> None:
    """Stored, aligned, with the engine in it once; the same bytes each time."""
    x = torch.randn(2, 16)
    compiled = compile_all(mlp, x)
    save(compiled, tmp_path / "m.pt2", x, retrace=False)
    path = tmp_path / "m.pt2"
    first = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            name_size = int.from_bytes(first[entry.header_offset + 26 :][:2], "little")
            extra_size = int.from_bytes(first[entry.header_offset + 28 :][:2], "little")
            start = entry.header_offset + 30 + name_size + extra_size
            assert start % (4096 if entry.file_size >= 1 << 16 else 64) == 0
        engine = archive.read(f"{MODEL}/engine_0.kiln")
    assert engine == compiled.engine_0.numpy().tobytes()
    assert first.count(engine[:64]) == 1
    save(compiled, path, x, retrace=False)
    assert path.read_bytes() == first


def test_extra_files(mlp, tmp_path) -> None:
    x = torch.randn(2, 16)
    save(compile_all(mlp, x), tmp_path / "m.pt2", x, extra_files={"note": "hello"})
    files = {"note": "", "other": "unchanged"}
    torch_tensorrt.load(tmp_path / "m.pt2", extra_files=files)
    assert files == {"note": "hello", "other": "unchanged"}


def test_exported_programs(mlp, tmp_path, assert_same) -> None:
    x = torch.randn(2, 16)
    program = torch_tensorrt.dynamo.export(compile_all(mlp, x), arg_inputs=[x])
    save(program, tmp_path / "m.pt2")
    assert_same(torch_tensorrt.load(tmp_path / "m.pt2")(x), mlp(x))


COMING_AND_GOING = """
import gc, os, sys, torch, torch_tensorrt
from torch._C._aoti import AOTIModelPackageLoader

def mapped():
    return sum("kiln.wrapper.so" in line or "engine_0.kiln" in line for line in open("/proc/self/maps"))

for _ in range(5):
    model = torch_tensorrt.load(sys.argv[1])
    model(torch.ones(512, 512))
    assert mapped() > 0
    del model
    gc.collect()
assert mapped() == 0, "packages that are gone are still mapped"
assert len(os.listdir("/proc/self/task")) < 12
torch_tensorrt.load(sys.argv[1])(torch.ones(512, 512))
"""


def test_packages_come_and_go(tmp_path) -> None:
    """Libraries are unloaded, and their threads end; a process may exit with one loaded."""
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU()).eval()
    x = torch.randn(512, 512)
    save(compile_all(model, x), tmp_path / "m.pt2", x)
    command = [sys.executable, "-c", COMING_AND_GOING, tmp_path / "m.pt2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestErrors:
    def test_names_that_do_not_end_in_pt2(self, mlp, tmp_path) -> None:
        x = torch.randn(2, 16)
        with pytest.raises(ValueError, match=r"expected one that ends in \.pt2"):
            save(compile_all(mlp, x), tmp_path / "m.ep", x)
        assert not list(tmp_path.iterdir())

    def test_other_systems(self, mlp, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("platform.system", lambda: "Darwin")
        x = torch.randn(2, 16)
        with pytest.raises(ValueError, match="for Linux only"):
            save(compile_all(mlp, x), tmp_path / "m.pt2", x)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    def test_torchscript(self, mlp, tmp_path) -> None:
        x = torch.randn(2, 16)
        with pytest.raises(ValueError, match="ScriptModule"):
            save(torch.jit.trace(mlp, x), tmp_path / "m.pt2", x)

    def test_integers_that_vary(self, tmp_path) -> None:
        class Model(torch.nn.Module):
            def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
                return x * n

        program = torch.export.export(
            Model(), (torch.randn(2), 3), dynamic_shapes=(None, torch.export.Dim.DYNAMIC)
        )
        with pytest.raises(ValueError, match="input 'n' is an integer that may vary"):
            save(program, tmp_path / "m.pt2")

    def test_a_failed_save_leaves_the_old_file(self, mlp, tmp_path, monkeypatch) -> None:
        path = tmp_path / "m.pt2"
        path.write_bytes(b"old")

        def fail(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(zipfile.ZipInfo, "FileHeader", fail)
        x = torch.randn(2, 16)
        with pytest.raises(KeyboardInterrupt):
            save(compile_all(mlp, x), path, x)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt2"]

    def test_inductor_configs_are_for_packages(self, mlp, tmp_path) -> None:
        with pytest.warns(UserWarning, match="'inductor_configs'.*aot_inductor"):
            torch_tensorrt.save(
                compile_all(mlp, torch.randn(2, 16)), tmp_path / "m.ep", inductor_configs={}
            )

    def test_folders_of_something_else(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="not an unpacked package"):
            aoti.package.load_package(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace("kiln-program 1", "kiln-program 2"), "line 1"),
            (lambda text: text.replace("run_engine 0", "run_engine 7"), "there is no engine 7"),
            (lambda text: text.replace("inputs 0", "inputs 5"), "there is no value 5"),
            (lambda text: text.replace("results 1", "results 2"), "does not fit its engines"),
        ],
    )
    def test_damaged_programs(self, mlp, tmp_path, capfd, change, message) -> None:
        x = torch.randn(2, 16)
        round_trip(mlp, tmp_path / "m.pt2", x)
        with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
            archive.extractall(tmp_path)
        program = tmp_path / MODEL / "program.kiln.txt"
        program.write_text(change(program.read_text()))
        with pytest.raises(ValueError, match="cannot be loaded"):
            torch_tensorrt.load(tmp_path / "m")
        assert message in capfd.readouterr().err

    def test_packages_without_their_engine(self, mlp, tmp_path, capfd) -> None:
        round_trip(mlp, tmp_path / "m.pt2", torch.randn(2, 16))
        with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
            archive.extractall(tmp_path)
        (tmp_path / MODEL / "engine_0.kiln").unlink()
        with pytest.raises(ValueError, match="cannot be loaded"):
            torch_tensorrt.load(tmp_path / "m")
        assert "engine_0.kiln" in capfd.readouterr().err
        shutil.rmtree(tmp_path / "m")
