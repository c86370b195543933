"""Saves models in every format, or loads what another process (of another PyTorch, maybe) has saved.

    python exchange.py save FOLDER
    python exchange.py load FOLDER

Prints a line of JSON for each thing that was tried: {"case": ..., "error": text or null}.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import torch_tensorrt

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import models_small  # noqa: E402

BATCHES = (1, 3, 8)


class Classifier(torch.nn.Module):
    """Convolutions; x: [batch, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3))).softmax(-1)


class Attention(torch.nn.Module):
    """A layer of a transformer; x: [batch, 6, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


# Module, and the sizes of its input after the batch. In PyTorch's own loaders a result is what eager gives.
MODELS: dict[str, tuple[type[torch.nn.Module], tuple[int, ...]]] = {
    "mlp": (models_small.Mlp, (16,)),
    "classifier": (Classifier, (3, 16, 16)),
    "attention": (Attention, (6, 16)),
    "nested_results": (models_small.NestedResults, (4,)),
    "leftovers": (models_small.SortInTheMiddle, (16,)),
}
WHOLE = ("mlp", "classifier", "attention")  # one engine, one result


def make(name: str) -> tuple[torch.nn.Module, torch_tensorrt.Input]:
    kind, sizes = MODELS[name]
    torch.manual_seed(0)
    bounds = {
        f"{kind}_shape": (batch, *sizes)
        for kind, batch in zip(("min", "opt", "max"), BATCHES, strict=True)
    }
    return kind().eval(), torch_tensorrt.Input(**bounds, name="x")


# ---- Saving ----


def save_compiled(folder: Path, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    model, given = make(name)
    compiled = torch_tensorrt.compile(model, "dynamo", [given], min_block_size=1)

    def save(ending: str, output_format: str) -> None:
        path = folder / f"{name}{ending}"
        torch_tensorrt.save(compiled, path, arg_inputs=[given], output_format=output_format)

    def save_without_compiler() -> None:
        from torch_tensorrt.formats import aoti

        there, aoti.package.has_compiler = aoti.package.has_compiler, lambda configs: False
        try:
            save(".plain.pt2", "aot_inductor")
        finally:
            aoti.package.has_compiler = there

    yield "ep", lambda: save(".ep", "exported_program")
    yield "ts", lambda: save(".ts", "torchscript")
    yield "pt2", lambda: save(".pt2", "aot_inductor")
    if name not in WHOLE:
        yield "pt2 without compiler", save_without_compiler


def save_program(folder: Path, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """What torch.export writes, for the importer, and the engine that is made of it."""
    model, given = make(name)
    batch = torch.export.Dim("batch", min=BATCHES[0], max=BATCHES[-1])
    example = torch.randn(2, *MODELS[name][1])
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    yield "program", lambda: torch.export.save(program, folder / f"{name}.exported.pt2")

    def save_engine() -> None:
        convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
        (folder / f"{name}.kiln").write_bytes(convert(program, arg_inputs=[given]))

    yield "kiln", save_engine


def save_all(folder: Path) -> None:
    for name in MODELS:
        model, _ = make(name)
        examples = []
        for batch in BATCHES:
            x = torch.randn(batch, *MODELS[name][1])
            with torch.no_grad():
                examples.append((x, pytree.tree_leaves(model(x))))
        torch.save(examples, folder / f"{name}.examples")
        writers = [save_compiled] + [save_program] * (name in WHOLE)
        for writer in writers:
            for kind, save in writer(folder, name):
                attempt(f"save {name} {kind}", save)


# ---- Loading ----


def run_kiln(program: Path) -> Callable[[torch.Tensor], Any]:
    """The importer and the runtime, which know no PyTorch."""
    import kiln

    session = kiln.load(kiln.compile(program)).session()
    return lambda x: [torch.from_numpy(each) for each in session.run(x.numpy())]


LOADERS: dict[str, dict[str, Callable[[Path], Any]]] = {
    ".ep": {
        "torch_tensorrt.load": lambda path: torch_tensorrt.load(str(path)).module(),
        "torch.export.load": lambda path: torch.export.load(str(path)).module(),
    },
    ".ts": {
        "torch_tensorrt.load": lambda path: torch_tensorrt.load(str(path)),
        "torch.jit.load": lambda path: torch.jit.load(str(path)),
    },
    ".pt2": {
        "torch_tensorrt.load": lambda path: torch_tensorrt.load(str(path)),
        "aoti_load_package": lambda path: torch._inductor.aoti_load_package(str(path)),
    },
    ".kiln": {"torch_tensorrt.load": lambda path: torch_tensorrt.load(str(path))},
    ".exported.pt2": {"kiln.compile": run_kiln},
}
LOADERS[".plain.pt2"] = LOADERS[".pt2"]


def check(load: Callable[[Path], Any], path: Path, examples: list[tuple[Any, Any]]) -> None:
    module = load(path)
    for x, expected in examples * 2:
        with torch.no_grad():
            got = pytree.tree_leaves(module(x))
        assert len(got) == len(expected), f"got {len(got)} results, expected {len(expected)}"
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    too_large = torch.cat([examples[-1][0], examples[0][0]])
    try:
        module(too_large)
    except Exception as error:
        text = str(error)
        # The largest that is allowed; loaders of packages before torch 2.13 say it on stderr alone.
        assert "8" in text or "API call failed" in text, text
    else:
        raise AssertionError("a size past the range was taken")


def load_all(folder: Path) -> None:
    for name in MODELS:
        examples = torch.load(folder / f"{name}.examples")
        for ending, loaders in LOADERS.items():
            path = folder / f"{name}{ending}"
            for title, load in loaders.items() if path.exists() else ():
                attempt(f"load {path.name} {title}", lambda: check(load, path, examples))  # noqa: B023


def attempt(case: str, action: Callable[[], None]) -> None:
    error = None
    print(json.dumps({"case": case, "started": True}), flush=True)  # the last word, should it crash
    try:
        action()
    except Exception:
        error = traceback.format_exc(limit=-6)
    print(json.dumps({"case": case, "error": error}), flush=True)


if __name__ == "__main__":
    {"save": save_all, "load": load_all}[sys.argv[1]](Path(sys.argv[2]))
