"""The C functions of a package's container, called as PyTorch's loader calls them.

Loaders differ between versions of PyTorch: since 2.14 they free every input that a run has left in
its slot, since 2.15 they look for more functions. So slots, owners and names are looked at here.
"""

from __future__ import annotations

import ctypes
import inspect
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import SortInTheMiddle, batch_input, compile_all

import torch_tensorrt
from torch_tensorrt.formats import aoti

to_handle = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
from_handle = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
capsule_of = ctypes.pythonapi.PyCapsule_New
capsule_of.restype = ctypes.py_object
capsule_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

RUNS = ["AOTInductorModelContainerRun", "AOTInductorModelContainerRunSingleThreaded"]
needs_compiler = pytest.mark.skipif(
    not aoti.package.has_compiler({}), reason="there is no C++ compiler"
)


class Container:
    """A package's container. A call gives its error code, the slots of inputs and those of outputs."""

    def __init__(self, folder: Path) -> None:
        (library,) = folder.rglob("kiln.wrapper.so")
        self.library = ctypes.CDLL(str(library))
        self.handle = ctypes.c_void_p()
        create = self.library.AOTInductorModelContainerCreateWithDevice
        assert create(ctypes.byref(self.handle), ctypes.c_size_t(1), b"cpu", None) == 0

    def close(self) -> None:
        assert self.library.AOTInductorModelContainerDelete(self.handle) == 0

    def run(self, name: str, *inputs: torch.Tensor, outputs: int = 1) -> tuple[int, list, list]:
        handles = [pointer_of(to_handle(each), None) for each in inputs]
        given = (ctypes.c_void_p * len(inputs))(*handles)
        made = (ctypes.c_void_p * outputs)()
        error = getattr(self.library, name)(
            self.handle,
            given,
            ctypes.c_size_t(len(inputs)),
            made,
            ctypes.c_size_t(outputs),
            None,
            None,
        )
        return error, list(given), list(made)

    def last_error(self) -> str:
        text = ctypes.c_char_p()
        assert self.library.AOTInductorGetLastError(ctypes.byref(text)) == 0
        return text.value.decode()


@pytest.fixture(
    scope="module",
    params=["engines", pytest.param("compiled code", marks=[needs_compiler])],
)
def container(request, tmp_path_factory) -> Any:
    """Of a package that is one engine, and of one with compiled code between engines."""
    torch.manual_seed(0)
    model = SortInTheMiddle().eval() if request.param == "compiled code" else torch.nn.ReLU()
    folder = tmp_path_factory.mktemp("container")
    torch_tensorrt.save(
        compile_all(model, batch_input()),
        folder / "m.pt2",
        arg_inputs=[batch_input()],
        output_format="aot_inductor",
    )
    with zipfile.ZipFile(folder / "m.pt2") as archive:
        archive.extractall(folder / "unpacked")
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    assert ("model.so.1" in names) == (request.param == "compiled code")
    opened = Container(folder)
    opened.model, opened.folder, opened.names = model, folder, names
    yield opened
    opened.close()


@pytest.mark.parametrize("name", RUNS)
class TestInputsOfARun:
    def test_are_taken(self, container, name, assert_same) -> None:
        x = torch.randn(3, 16)
        owners = x._use_count()
        error, given, made = container.run(name, x)
        assert error == 0, container.last_error()
        assert given == [None]
        result = from_handle(capsule_of(made[0], None, None))
        with torch.no_grad():
            assert_same(result, container.model(x))
        assert x._use_count() == owners

    @pytest.mark.parametrize(
        ("inputs", "outputs", "message"),
        [
            ([torch.ones(33, 16)], 1, "got 33, expected 1..32"),
            ([torch.ones(3, 16, dtype=torch.float64)], 1, "got dtype f64"),
            ([torch.ones(3)], 1, "got rank 1"),
            ([torch.ones(3, 16, device="meta")], 1, "is not in CPU memory"),
            ([], 1, "got 0 input tensors"),
            ([torch.ones(3, 16)] * 2, 1, "got 2 input tensors"),
            ([torch.ones(3, 16)], 2, "got 2 outputs"),
            ([torch.ones(3, 16)] * 5, 0, "got 0 outputs"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_are_taken_by_runs_that_fail(self, container, name, inputs, outputs, message) -> None:
        owners = [each._use_count() for each in inputs]
        error, given, made = container.run(name, *inputs, outputs=outputs)
        assert error != 0
        assert message in container.last_error()
        assert given == [None] * len(inputs)
        assert made == [None] * outputs
        assert [each._use_count() for each in inputs] == owners


def test_every_function_that_the_loader_looks_up_is_there(container) -> None:
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    names = {
        found[1].decode()
        for found in re.finditer(rb"\0(AOTInductor\w+)(?=\0)", library.read_bytes())
    }
    assert len(names) > 15
    assert [name for name in sorted(names) if not hasattr(container.library, name)] == []


def test_every_loader_finds_the_metadata(container) -> None:
    """Up to 2.12 by the name of the library's source, then by that of the library."""
    assert {f"kiln.wrapper{end}" for end in (".cpp", ".so", "_metadata.json")} <= container.names


def test_streams_are_tied_to_nothing(container) -> None:
    """What a loader of 2.15 calls for `use_stream_affinity`."""
    set_affinity = container.library.AOTInductorModelContainerSetUseStreamAffinity
    index = ctypes.c_int64(5)
    for wanted in (True, False):
        assert set_affinity(container.handle, ctypes.c_bool(wanted)) == 0
        name = "AOTInductorModelContainerGetStreamAffinityModelIndexForTesting"
        assert getattr(container.library, name)(container.handle, None, ctypes.byref(index)) == 0
        assert index.value == -2


def test_no_weights_come_from_outside(container) -> None:
    create = container.library.AOTInductorModelContainerCreateWithExternalConstants
    made = ctypes.c_void_p()
    arguments = (ctypes.byref(made), ctypes.c_size_t(1), b"cpu", None, None)
    assert create(*arguments, ctypes.c_size_t(1)) != 0
    assert "cannot be changed" in container.last_error()
    assert create(*arguments, ctypes.c_size_t(0)) == 0
    assert container.library.AOTInductorModelContainerDelete(made) == 0


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"run_single_threaded": True},
        {"num_runners": 3},
        {"use_stream_affinity": True},
        {"num_runners": 2, "use_stream_affinity": True},
    ],
    ids=str,
)
def test_options_of_the_loader(container, options, unpacked, assert_same) -> None:
    load = torch._inductor.aoti_load_package
    if not options.keys() <= inspect.signature(load).parameters.keys():
        pytest.skip(f"this PyTorch's loader takes {inspect.signature(load)}")
    if unpacked and torch.__version__ < (2, 13):
        pytest.skip(f"the loader of torch {torch.__version__} takes no folders")
    (file,) = container.folder.glob("*.pt2")
    loaded = load(str(container.folder / "unpacked" if unpacked else file), **options)
    for batch in (1, 3, 32):
        x = torch.randn(batch, 16)
        with torch.no_grad():
            assert_same(loaded(x), container.model(x))
