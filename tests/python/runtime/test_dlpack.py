"""DLPack into and out of the package `kiln`: nothing is copied, and what may only be read is not written to."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch

import kiln
from kiln import dlpack


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


def make_session(x: torch.Tensor, tmp_path) -> kiln.Session:
    torch.export.save(torch.export.export(Double(), (x,)), tmp_path / "double.pt2")
    return kiln.load(kiln.compile(tmp_path / "double.pt2")).session()


@pytest.fixture
def session(tmp_path) -> kiln.Session:
    return make_session(torch.ones(3, 4), tmp_path)


def values() -> torch.Tensor:
    return torch.arange(12, dtype=torch.float32).reshape(3, 4)


class Exporter:
    """A tensor of another library, which may lie about it."""

    def __init__(self, tensor: Any, device: int = 1, versioned: bool = True) -> None:
        self.tensor, self.device, self.versioned = tensor, device, versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: Any) -> Any:
        if not self.versioned and options:
            raise TypeError("unexpected keyword argument")
        return self.change(self.tensor.__dlpack__(**options))

    def change(self, capsule: Any) -> Any:
        return capsule


class ReadOnly(Exporter):
    def change(self, capsule: Any) -> Any:
        pointer = dlpack._capsule_pointer(capsule, b"dltensor_versioned")
        ctypes.cast(pointer, ctypes.POINTER(dlpack._Versioned)).contents.flags |= 1
        return capsule


class Newer(Exporter):
    def change(self, capsule: Any) -> Any:
        pointer = dlpack._capsule_pointer(capsule, b"dltensor_versioned")
        ctypes.cast(pointer, ctypes.POINTER(dlpack._Versioned)).contents.major = 2
        return capsule


DTYPES = {
    "f32": torch.float32,
    "f64": torch.float64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
}


@pytest.mark.parametrize("name", DTYPES)
def test_tensors_of_every_dtype_go_in_and_come_out(name, tmp_path) -> None:
    x = values().to(DTYPES[name])
    (result,) = make_session(x, tmp_path).run(x)
    assert isinstance(result, np.ndarray)
    y = torch.from_dlpack(result)
    assert y.dtype == x.dtype
    assert torch.equal(y, x + x)
    assert y.data_ptr() == result.ctypes.data  # the same memory


def test_bools_go_in_and_come_out(tmp_path) -> None:
    class Not(torch.nn.Module):
        def forward(self, x):
            return ~x

    x = torch.tensor([True, False, True])
    torch.export.save(torch.export.export(Not(), (x,)), tmp_path / "not.pt2")
    (result,) = kiln.load(kiln.compile(tmp_path / "not.pt2")).session().run(x)
    assert torch.equal(torch.from_dlpack(result), ~x)


def test_results_tell_their_device(session) -> None:
    (result,) = session.run(values())
    assert result.__dlpack_device__() == (1, 0)
    assert session.device == "cpu"


def test_inputs_are_read_where_they_lie() -> None:
    x = values()
    for tensor in (x, x.T, x[1:, ::2], x.numpy(), x[:0]):
        borrowed = kiln.arrays.borrow(tensor)
        assert borrowed.tensor.rank == tensor.ndim
        assert tuple(borrowed.tensor.shape[: tensor.ndim]) == tuple(tensor.shape)
        if isinstance(tensor, np.ndarray):
            assert borrowed.tensor.data == tensor.ctypes.data
        elif tensor.numel() > 0:
            assert borrowed.tensor.data == tensor.data_ptr()
    scalar = torch.tensor(2.5)
    assert kiln.arrays.borrow(scalar).tensor.data == scalar.data_ptr()


def test_strided_tensors(session) -> None:
    x = torch.arange(12, dtype=torch.float32).reshape(4, 3).T
    (result,) = session.run(x)
    np.testing.assert_array_equal(result, (x + x).numpy())


@pytest.mark.parametrize("versioned", [True, False])
def test_old_and_new_capsules(session, versioned) -> None:
    x = values()
    (result,) = session.run(Exporter(x, versioned=versioned))
    np.testing.assert_array_equal(result, (x + x).numpy())


def test_outputs_are_written_in_place(session) -> None:
    x, out = values(), torch.empty(3, 4)
    (result,) = session.run(x, out=[out])
    assert result is out
    assert torch.equal(out, x + x)


def test_outputs_are_made_by_the_caller(session) -> None:
    made = []

    def make(info: kiln.TensorInfo, shape: tuple[int, ...]) -> torch.Tensor:
        assert info.dtype == "f32"
        made.append(torch.empty(shape))
        return made[-1]

    x = values()
    (result,) = session.run(x, out=make)
    assert result is made[0]
    assert torch.equal(result, x + x)


def test_what_may_only_be_read_is_no_output(session) -> None:
    x, out = values(), torch.zeros(3, 4)
    constant = np.zeros((3, 4), np.float32)
    constant.flags.writeable = False
    for target in (ReadOnly(out), constant):
        with pytest.raises(kiln.InvalidArgumentError, match="not contiguous and writeable"):
            session.run(x, out=[target])
    assert torch.equal(out, torch.zeros(3, 4))
    # As inputs they are as good as any.
    for source in (ReadOnly(x), np.broadcast_to(np.float32(1), (3, 4))):
        session.run(source)


def test_what_cannot_be_taken_says_why(session) -> None:
    x = values()
    refused = [
        (x.clone().requires_grad_(), "Tensor cannot be read through DLPack"),
        (x.to(torch.complex64), "dtype that Kiln lacks"),
        (Exporter(x, device=7), "a device that Kiln does not know"),
        (Newer(x), r"got a tensor of DLPack 2\.\d+, expected 1"),
        (x.numpy().astype(np.complex64), "array has dtype complex64"),
    ]
    for value, text in refused:
        with pytest.raises(kiln.InvalidArgumentError, match=text):
            session.run(value)
    with pytest.raises(kiln.InvalidArgumentError, match="strided|not contiguous"):
        session.run(x, out=[torch.empty(4, 3).T])


def test_tensors_stay_alive_for_as_long_as_they_are_used(session) -> None:
    for _ in range(100):
        (result,) = session.run(torch.full((3, 4), 1.5))
        kept = torch.from_dlpack(result)
        del result
        assert torch.equal(kept, torch.full((3, 4), 3.0))


def test_what_is_computed_with_bits_is_no_bfloat16(tmp_path) -> None:
    x = values().to(torch.bfloat16)
    (bits,) = make_session(x, tmp_path).run(x)
    assert isinstance(bits, kiln.BFloat16Array)
    assert torch.equal(torch.from_dlpack(bits[1:]), (x + x)[1:])
    assert type(bits + 1) is np.ndarray
    assert type(np.add(bits, 1, out=bits)) is np.ndarray
    assert torch.from_dlpack(bits.view(np.int16)).dtype == torch.int16


def test_weights_through_dlpack_are_borrowed() -> None:
    weight = torch.ones(2, 3, dtype=torch.bfloat16)
    view = kiln.arrays.as_view(weight, "a weight")
    assert (view.address, view.dtype, view.shape) == (weight.data_ptr(), "bf16", (2, 3))
    with pytest.raises(kiln.InvalidArgumentError, match="not contiguous"):
        kiln.arrays.as_view(weight.T, "a weight")


def test_runs_are_cancelled(session) -> None:
    flag = kiln.CancelFlag()
    x = values()
    session.run(x, cancel=flag)
    flag.set()
    assert flag.is_set()
    with pytest.raises(kiln.CancelledError):
        session.run(x, cancel=flag)
    flag.clear()
    session.run(x, cancel=flag)
    session.synchronize()


def test_a_cpu_has_one_device_and_no_streams(session) -> None:
    with pytest.raises(kiln.InvalidArgumentError, match="got a stream for a program that runs on"):
        session.run(values(), stream=64)
    with pytest.raises(kiln.InvalidArgumentError, match="got device 1, expected 0..0"):
        session.engine.session(device=1)
