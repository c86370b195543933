"""Files of several engines, of sizes around every threshold: whatever was saved comes back, byte for byte.

Thresholds: 1 MiB (`exported_program.py`: larger tensors go from memory into an .ep), 64 KiB (`aoti/archive.py`: larger
entries lie at pages) and 16 MiB (the same: entries are written in pieces).
"""

from __future__ import annotations

import zipfile
from typing import Any

import pytest
import torch
from models_small import engines_of

import torch_tensorrt
from torch_tensorrt.formats import aoti, exported_program, verify

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
CASES = [("ep", True), ("ep", False), ("ts", False), ("pt2", False)]


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch) -> None:
    """Packages without compiled code: that takes a minute each, and does not see the engines' bytes."""
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)


class Chain(torch.nn.Module):
    """Linear layers with a sort, which stays in PyTorch, between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.sort(torch.tanh(layer(x)), -1).values
        return x


def compile_with_sort_outside(module: torch.nn.Module, *inputs: torch.Tensor) -> Any:
    program = torch.export.export(module.eval(), inputs, strict=False)
    return torch_tensorrt.dynamo.compile(
        program,
        arg_inputs=list(inputs),
        min_block_size=1,
        torch_executed_ops={
            "torch.ops.aten.sort.default",
            "torch.ops.aten.logcumsumexp.default",
            *(["torch.ops.aten.addmm.default"] if getattr(module, "leave_addmm", False) else ()),
        },
    )


def loads(path: Any) -> list[Any]:
    """Every way to load a file."""
    calls = [torch_tensorrt.load(path)]
    if path.suffix == ".ep":
        calls.append(torch.export.load(path).module())
    if path.suffix == ".ts":
        calls.append(torch.jit.load(path))
    if path.suffix == ".pt2":
        calls.append(torch._inductor.aoti_load_package(str(path)))
    return calls


def check_formats(compiled: Any, tmp_path: Any, *inputs: torch.Tensor) -> None:
    expected = compiled(*inputs)
    for ending, retrace in CASES:
        path = tmp_path / f"model_{retrace}.{ending}"
        torch_tensorrt.save(
            compiled,
            path,
            output_format=FORMATS[ending],
            arg_inputs=list(inputs) if retrace else None,
            retrace=retrace,
        )
        for call in loads(path):
            result = call(*inputs)
            assert torch.equal(result, expected), path.name


WIDTHS = {  # an engine has 4 bytes per weight, and some KiB of code
    "one": (512, 512),
    "two of one size": (520, 520, 520),
    "two below the threshold of .ep": (400, 400, 400),
    "one below, one above": (64, 512, 520),
    "below 64 KiB": (16, 16, 16),
    "five of one size": (520,) * 6,
    "five of different sizes": (64, 512, 520, 700, 128, 16),
    "above 16 MiB": (1100, 4100, 1100),
}


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
def test_engines_around_the_thresholds(tmp_path, widths) -> None:
    x = torch.randn(3, widths[0])
    model = Chain(*widths)
    compiled = compile_with_sort_outside(model, x)
    assert len(engines_of(compiled)) == len(widths) - 1
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    check_formats(compiled, tmp_path, x)


@pytest.mark.parametrize("size", [(1 << 16), (1 << 20), (1 << 24), (1 << 20) * 3 // 2])
@pytest.mark.parametrize("off", [-4, 0, 4])
def test_weights_left_in_pytorch_around_the_thresholds(tmp_path, size, off) -> None:
    """Two weights of one size and two engines: all of one dtype but for the engines."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.randn((size + off) // 4))
            self.register_buffer("b", torch.randn((size + off) // 4))
            self.register_buffer("c", torch.arange(5, dtype=torch.uint8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.sort(torch.tanh(x) * 2).values
            total = torch.logcumsumexp(self.a - self.b, 0)[-1:]
            return torch.sin(first + total) + self.c.sort().values[:1]

    x = torch.randn(7)
    check_formats(compile_with_sort_outside(Model(), x), tmp_path, x)


@pytest.mark.parametrize("rows", [100, 600])
def test_tied_weights(tmp_path, rows) -> None:
    """One memory behind several names, as a whole, as a view from the middle and transposed: written once."""

    class Model(torch.nn.Module):
        leave_addmm = True

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(rows, rows)
            self.second = torch.nn.Linear(rows, rows)
            self.second.weight = self.first.weight
            self.register_buffer("tail", self.first.weight.detach()[rows // 2 :])
            self.register_buffer("turned", self.first.weight.detach().t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(torch.sort(self.first(x)).values)
            return torch.logcumsumexp(y @ self.turned, 1).sum() + torch.logcumsumexp(self.tail, 0)

    x = torch.randn(2, rows)
    module = Model()
    program = torch.export.export(module.eval(), (x,), strict=False)
    path = tmp_path / "program.ep"
    torch_tensorrt.save(program, path)  # as it is: PyTorch ties what is tied
    with zipfile.ZipFile(path) as archive:
        sizes = [entry.file_size for entry in archive.infolist() if "/weight_" in entry.filename]
    assert sorted(sizes)[-1] == rows * rows * 4
    assert sum(size == rows * rows * 4 for size in sizes) == 1
    with torch.no_grad():
        assert torch.equal(torch.export.load(path).module()(x), module(x))
    check_formats(compile_with_sort_outside(module, x), tmp_path, x)


def test_one_engine_called_twice(tmp_path) -> None:
    x = torch.randn(3, 520)
    compiled = compile_with_sort_outside(Chain(520, 520, 520), x)
    compiled.engine_1 = compiled.engine_0
    check_formats(compiled, tmp_path, x)


def archive_with(path: Any, change: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries:
            for new in change(entry.filename, data):
                archive.writestr(*new)


class TestWhatIsWrittenIsChecked:
    """A writer that loses, swaps, shortens, doubles or changes a record ends the save, and leaves the old file."""

    @staticmethod
    def losses(names: list[str]) -> dict[str, Any]:
        a, b = names[:2]
        return {
            "lost": lambda name, data: [] if name.endswith(a) else [(name, data)],
            "emptied": lambda name, data: [(name, b"" if name.endswith(a) else data)],
            "one byte short": lambda name, data: [(name, data[: len(data) - name.endswith(a)])],
            "one bit changed": lambda name, data: [
                (name, data[:-1] + bytes([data[-1] ^ 1]) if name.endswith(a) else data)
            ],
            "twice": lambda name, data: [(name, data)] * (1 + name.endswith(a)),
            "swapped": lambda name, data: [
                (name[: -len(a)] + b, data)
                if name.endswith(a)
                else (name[: -len(b)] + a, data)
                if name.endswith(b)
                else (name, data)
            ],
        }

    @pytest.mark.parametrize("how", losses(["", ""]).keys())
    @pytest.mark.parametrize(
        ("ending", "entries"),
        [
            ("ep", ["weights/weight_0", "weights/weight_1"]),
            ("ts", ["data/0", "data/1"]),
            ("pt2", ["engine_0.kiln", "engine_1.kiln"]),
        ],
    )
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_in_every_format(self, tmp_path, monkeypatch, ending, entries, how) -> None:
        x = torch.randn(3, 520)
        compiled = compile_with_sort_outside(Chain(520, 520, 520), x)
        change = self.losses(entries)[how]
        checked = verify.WrittenArchive.__init__

        def damage(self: Any, file: Any) -> None:
            file.flush()
            archive_with(
                file.name if isinstance(file.name, str) else f"/dev/fd/{file.name}", change
            )
            checked(self, file)

        monkeypatch.setattr(verify.WrittenArchive, "__init__", damage)
        path = tmp_path / f"m.{ending}"
        path.write_bytes(b"old")
        with pytest.raises(verify.WriteError, match="nothing was saved"):
            torch_tensorrt.save(compiled, path, output_format=FORMATS[ending])
        assert path.read_bytes() == b"old"
        assert [each.name for each in tmp_path.iterdir()] == [path.name]

    def test_a_program_that_cannot_be_read_again(self, tmp_path, monkeypatch) -> None:
        x = torch.randn(3, 16)
        compiled = compile_with_sort_outside(Chain(16, 16), x)

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("of an unknown kind")

        monkeypatch.setattr(torch.export, "load", fail)
        with pytest.raises(verify.WriteError, match="cannot read what.*of an unknown kind"):
            torch_tensorrt.save(compiled, tmp_path / "m.ep")
        assert not list(tmp_path.iterdir())


def test_a_large_engine_is_not_copied_in_memory(tmp_path, monkeypatch) -> None:
    """torch.export.save, which copies what it writes, never sees it."""
    x = torch.randn(3, 1100)
    compiled = compile_with_sort_outside(Chain(1100, 1100, 1100), x)
    seen = []
    save = torch.export.save

    def watch(program: Any, *args: Any, **kwargs: Any) -> None:
        seen.extend(tensor.untyped_storage().nbytes() for tensor in program.state_dict.values())
        save(program, *args, **kwargs)

    monkeypatch.setattr(torch.export, "save", watch)
    torch_tensorrt.save(compiled, tmp_path / "m.ep")
    assert len(seen) == 2
    assert max(seen) < exported_program._LARGE_BYTES
