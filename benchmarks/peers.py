"""The ways to run a PyTorch model on the CPU that the benchmark compares.

A peer builds into a folder in one process, and loads and runs from it in another. Both may raise
Missing, with the reason.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path

import torch

from models import Model, flat_tensors

Inputs = tuple[torch.Tensor, ...]
Runner = Callable[..., object]


class Missing(Exception):
    """The peer is not installed."""


class Peer:
    name = ""
    ahead_of_time = True
    modules: tuple[str, ...] = ()  # what load() needs

    def prepare(self) -> None:
        """Imports what load() needs, so that loading a model is timed and not loading Python modules."""
        require(*self.modules)
        for module in self.modules:
            importlib.import_module(module)

    def build(self, model: Model, folder: Path, full: bool) -> None:
        """Writes what load() needs into the folder."""

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        """A function of the inputs."""
        raise NotImplementedError


def export(model: Model, full: bool) -> torch.export.ExportedProgram:
    """With a dynamic batch, and sequence length for text, as Kiln gets it."""
    module = model.module(full)
    inputs = model.inputs(2, 16, full)
    names = list(inspect.signature(module.forward).parameters)[: len(inputs)]
    shapes = dict.fromkeys(names, model.dynamic_dims())
    with torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


class Eager(Peer):
    name = "eager"
    ahead_of_time = False

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        return model.module(full)


class Compiled(Peer):
    """torch.compile with freezing; compiles at the first call of each shape."""

    name = "torch.compile"
    ahead_of_time = False

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        import torch._inductor.config as config

        config.freezing = True
        return torch.compile(model.module(full), dynamic=False)


class AotInductor(Peer):
    name = "AOTInductor"
    modules = ("torch._inductor.package",)

    def build(self, model: Model, folder: Path, full: bool) -> None:
        import torch._inductor as inductor

        inductor.aoti_compile_and_package(
            export(model, full),
            package_path=str(folder / "model.pt2"),
            inductor_configs={"freezing": True},
        )

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        import torch._inductor as inductor

        return inductor.aoti_load_package(str(folder / "model.pt2"))


class OnnxRuntime(Peer):
    name = "onnxruntime"
    modules = ("onnxruntime",)

    def build(self, model: Model, folder: Path, full: bool) -> None:
        require("onnxruntime", "onnx", "onnxscript")
        program = torch.onnx.export(export(model, full), dynamo=True, verbose=False)
        program.save(str(folder / "model.onnx"), external_data=True)

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        names = [entry.name for entry in session.get_inputs()]

        def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
            feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
            return [torch.from_numpy(y) for y in session.run(None, feeds)]

        return run


class OpenVino(Peer):
    name = "openvino"
    modules = ("openvino",)

    def build(self, model: Model, folder: Path, full: bool) -> None:
        require("openvino")
        import openvino

        converted = openvino.convert_model(export(model, full).run_decompositions({}))
        openvino.save_model(converted, str(folder / "model.xml"), compress_to_fp16=False)

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", settings)

        def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
            results = compiled([x.numpy() for x in inputs])
            return [torch.from_numpy(results[port]) for port in compiled.outputs]

        return run


class Kiln(Peer):
    name = "kiln"
    modules = ("torch_tensorrt",)

    def build(self, model: Model, folder: Path, full: bool) -> None:
        import torch_tensorrt

        inputs = [torch_tensorrt.Input(**ranges) for ranges in model.ranges(full)]
        module = torch_tensorrt.compile(
            model.module(full), ir="dynamo", arg_inputs=inputs, require_full_compilation=True
        )
        torch_tensorrt.save(module, str(folder / "model.ep"), arg_inputs=inputs)

    def load(self, model: Model, folder: Path, full: bool) -> Runner:
        import torch_tensorrt

        return torch_tensorrt.load(str(folder / "model.ep")).module()


def require(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise Missing(f"{', '.join(missing)} is not installed")


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in [Eager(), Compiled(), AotInductor(), OnnxRuntime(), OpenVino(), Kiln()]
}


def use_threads(count: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)


def outputs_of(runner: Runner, inputs: Inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return flat_tensors(runner(*inputs))
