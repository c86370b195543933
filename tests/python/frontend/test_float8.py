"""float8_e4m3fn in engines: converted as PyTorch does, moved, kept as weights, saved in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kiln
import torch_tensorrt
from torch_tensorrt._operator import execute_engine
from torch_tensorrt.formats import aoti

F8 = torch.float8_e4m3fn
WIDER = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def codes(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.uint8)


def all_codes() -> torch.Tensor:
    return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(F8)


def to_float8(x: torch.Tensor) -> torch.Tensor:
    """What engines give: PyTorch's conversion, and 448 where older versions of it have NaN for what is too large."""
    return torch.where(x.isnan(), x, x.clamp(-448, 448)).to(F8)


def compile_whole(module: torch.nn.Module, *args: torch.Tensor) -> torch.fx.GraphModule:
    """One engine, and nothing beside it."""
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(module.eval(), args),
        arg_inputs=args,
        min_block_size=1,
        require_full_compilation=True,
    )
    assert len(compiled.graph.find_nodes(op="call_function", target=execute_engine)) == 1
    return compiled


class Cast(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype)


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """Every value, what lies halfway between two, the neighbours of those, and what is out of range."""
    values = all_codes().double()
    values = values[values.isfinite()].unique()
    halfway = (values[1:] + values[:-1]) / 2
    near = torch.cat([values, halfway])
    beyond = torch.tensor([460.0, 464.0, 465.0, 480.0, 1e4, torch.inf, torch.nan, 1e-3, 1e-10, 0.0])
    exact = torch.cat([near, near * (1 + 2**-9), near * (1 - 2**-9), beyond, -beyond])
    return exact.to(dtype)


@pytest.mark.parametrize("dtype", WIDER, ids=str)
def test_conversions_to(dtype: torch.dtype) -> None:
    x = numbers(dtype)
    got = compile_whole(Cast(F8), x)(x)
    assert got.dtype == F8
    assert torch.equal(codes(got), codes(to_float8(x)))


@pytest.mark.parametrize("dtype", [*WIDER, torch.int32, torch.int64, torch.bool], ids=str)
def test_conversions_from(dtype: torch.dtype) -> None:
    x = all_codes()
    if dtype in (torch.int32, torch.int64):
        x = x[~x.float().isnan()]
    got, expected = compile_whole(Cast(dtype), x)(x), x.to(dtype)
    assert got.dtype == dtype
    if dtype.is_floating_point:
        are_signed = ~expected.isnan()  # the sign of a NaN is the processor's choice
        assert torch.equal(got.signbit()[are_signed], expected.signbit()[are_signed])
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.uint8, torch.bool], ids=str)
def test_conversions_of_integers(dtype: torch.dtype) -> None:
    x = torch.arange(-128, 128).to(dtype)
    assert torch.equal(codes(compile_whole(Cast(F8), x)(x)), codes(to_float8(x.float())))


class Moves(torch.nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.transpose(0, 1).reshape(4, 4, 16)
        return (
            y.permute(2, 0, 1).contiguous(),
            y[:, 1:3, ::2],
            torch.cat([x, x[3:5]], 0),
            x[index],
            x.unsqueeze(0).expand(3, 16, 16),
        )


def test_what_is_moved_is_the_same_to_the_last_bit() -> None:
    x, index = all_codes().reshape(16, 16), torch.tensor([3, 0, 7])
    got = compile_whole(Moves(), x, index)(x, index)
    for mine, theirs in zip(got, Moves()(x, index), strict=True):
        assert mine.dtype == F8
        assert torch.equal(codes(mine), codes(theirs))


class Quantised(torch.nn.Module):
    """A linear layer as quantisers write it: weights and activations as float8, with scales."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        weight = torch.randn(columns, rows)
        scale = weight.abs().amax(1, keepdim=True) / 448
        self.register_buffer("weight", (weight / scale).to(F8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("scale", torch.tensor(4.0 / 448))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = (x / self.scale).clamp(-448, 448).to(F8)
        weight = self.weight.to(torch.float32) * self.weight_scale
        return torch.nn.functional.linear(q.to(torch.float32) * self.scale, weight)


@pytest.mark.parametrize("kind", ["exported_program", "torchscript", "aot_inductor"])
def test_quantised_models_in_every_format(kind: str, tmp_path: Path) -> None:
    model, x = Quantised(64, 32), torch.randn(8, 64)
    compiled = compile_whole(model, x)
    expected = model(x)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-4)
    path = tmp_path / f"m.{'pt2' if kind == 'aot_inductor' else 'ep'}"
    torch_tensorrt.save(compiled, path, arg_inputs=[x], output_format=kind)
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if kind == "exported_program" else loaded
    assert torch.equal(loaded(x), compiled(x))


def test_weights_stay_float8_in_the_engine() -> None:
    model, x = Quantised(512, 1024), torch.randn(8, 512)
    compiled = compile_whole(model, x)
    (call,) = compiled.graph.find_nodes(op="call_function", target=execute_engine)
    engine = getattr(compiled, str(call.args[1].target))
    assert model.weight.numel() < engine.numel() < 2 * model.weight.numel()


@pytest.mark.parametrize("kind", ["exported_program", "torchscript", "aot_inductor"])
def test_as_inputs_and_results_of_every_format(kind: str, tmp_path: Path) -> None:
    x, index = all_codes().reshape(16, 16), torch.tensor([3, 0, 7])
    path = tmp_path / f"m.{'pt2' if kind == 'aot_inductor' else 'ep'}"
    torch_tensorrt.save(
        compile_whole(Moves(), x, index), path, arg_inputs=[x, index], output_format=kind
    )
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if kind == "exported_program" else loaded
    for mine, theirs in zip(loaded(x, index), Moves()(x, index), strict=True):
        assert torch.equal(codes(mine), codes(theirs))


def test_engines_without_pytorch(tmp_path: Path) -> None:
    """NumPy has no float8: codes travel as uint8 in an array that says what they are."""

    class There(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.to(F8), x.to(F8).to(torch.float32)

    class Back(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(torch.float32)

    x = torch.randn(5, 7)
    engines = []
    for name, module, example in (("there", There(), x), ("back", Back(), x.to(F8))):
        torch.export.save(torch.export.export(module, (example,)), tmp_path / f"{name}.pt2")
        kiln.compile(tmp_path / f"{name}.pt2", output=tmp_path / f"{name}.kiln")
        engines.append(kiln.Engine(tmp_path / f"{name}.kiln"))
    there, back = engines
    assert there.outputs[0].dtype == back.inputs[0].dtype == "f8e4m3"
    bits, wide = there.session().run(x.numpy())
    assert isinstance(bits, kiln.Float8Array)
    assert (bits == codes(x.to(F8)).numpy()).all()
    (again,) = back.session().run(bits)
    assert (again == wide).all()
    with pytest.raises(kiln.InvalidArgumentError, match="f8e4m3"):
        back.session().run(codes(x.to(F8)).numpy())


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.to(F8).view(torch.uint8).view(F8).to(torch.float32)) + 1


def test_what_engines_lack_stays_in_pytorch() -> None:
    """Looking at codes as integers is PyTorch's: with float8 on both sides of it, in engines."""
    x = torch.randn(4, 6)
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(Scaled(), (x,)), arg_inputs=(x,), min_block_size=1
    )
    torch.testing.assert_close(compiled(x), Scaled()(x), rtol=0, atol=0)


@pytest.mark.skipif(not aoti.package.has_compiler({}), reason="there is no C++ compiler")
def test_packages_with_compiled_code(tmp_path: Path) -> None:
    x, path = torch.randn(4, 6), tmp_path / "m.pt2"
    compiled = torch_tensorrt.dynamo.compile(
        torch.export.export(Scaled(), (x,)), arg_inputs=(x,), min_block_size=1
    )
    torch_tensorrt.save(compiled, path, arg_inputs=[x], output_format="aot_inductor")
    torch.testing.assert_close(torch_tensorrt.load(path)(x), Scaled()(x), rtol=0, atol=0)


# ---- Products with scales, and what quantisers write ----


class ScaledProduct(torch.nn.Module):
    """torch._scaled_mm, with weights that lie as linear layers have them."""

    def __init__(self, per_row: bool, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", torch.randn(48, 64).to(F8))
        self.register_buffer("scale_a", torch.rand(32, 1) if per_row else torch.tensor(0.25))
        self.register_buffer("scale_b", torch.rand(1, 48) if per_row else torch.tensor(0.5))
        self.register_buffer("bias", torch.randn(48).to(dtype) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch._scaled_mm(
            x, self.weight.t(), self.scale_a, self.scale_b, self.bias, out_dtype=self.dtype
        )


def scaled_product(model: ScaledProduct, x: torch.Tensor) -> torch.Tensor:
    """In f64: what kernels of PyTorch round on the way depends on its version and the machine."""
    product = (
        x.double() @ model.weight.double().t() * model.scale_a.double() * model.scale_b.double()
    )
    return product if model.bias is None else product + model.bias.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("per_row", [False, True], ids=["tensor", "rows"])
def test_scaled_products(per_row: bool, bias: bool, dtype: torch.dtype) -> None:
    model, x = ScaledProduct(per_row, bias, dtype), torch.randn(32, 64).to(F8)
    try:
        compiled = compile_whole(model, x)
    except RuntimeError as error:
        pytest.skip(f"PyTorch does not export it here: {error}")
    got = compiled(x)
    assert got.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    expected = scaled_product(model, x)
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


class CodesProduct(torch.nn.Module):
    """A linear layer of codes, with scales of columns; its weights have columns at the edges of the format."""

    def __init__(self, k: int, n: int, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.randn(n, k)
        weight[0], weight[1], weight[2, k // 2], weight[3] = 448, 2**-9, torch.nan, 0
        self.register_buffer("weight", weight.to(F8))
        self.register_buffer("scale", torch.rand(n, 1) + 0.5)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(torch.float32) * self.scale
        return torch.nn.functional.linear(x.to(torch.float32) * 0.25, weight).to(self.dtype)


def rows_at_the_edges(k: int) -> torch.Tensor:
    """A NaN among others, the largest of either sign and of both, the smallest denormal, zeros of both signs."""
    signs = 1.0 - 2 * (torch.arange(k) % 2)
    one_nan = torch.randn(k)
    one_nan[-1] = torch.nan
    whole = [torch.full((k,), value) for value in (448.0, -448.0, 2**-9, 0.0, -0.0)]
    return torch.stack([one_nan, *whole, signs * 448, torch.randn(k)]).to(F8)


def check_edges(rows: int, k: int, n: int, dtype: torch.dtype, device: str) -> None:
    """Every result beside the sum of the magnitudes of its products, so small columns count as large ones do."""
    torch.manual_seed(0)
    model = CodesProduct(k, n, dtype).to(device)
    edges = rows_at_the_edges(k)
    weight = model.weight.cpu().double() * model.scale.cpu().double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    compiled = compile_whole(model, torch.zeros(rows, k).to(F8).to(device))
    for first in range(0, len(edges), rows):
        # Few rows take their turns, many have every edge more than once.
        given = edges.view(torch.uint8)[(first + torch.arange(rows)) % len(edges)].view(F8)
        got = compiled(given.to(device)).cpu().double()
        x = given.double() * 0.25
        expected, bound = x @ weight.T, tolerance * (x.abs() @ weight.abs().T)
        assert torch.equal(got.isnan(), expected.isnan())
        assert ((got - expected).abs() <= bound)[~expected.isnan()].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_of_codes_at_the_edges(dtype: torch.dtype) -> None:
    check_edges(5, 520, 72, dtype, "cpu")


@pytest.fixture
def quantize_op() -> object:
    """tensorrt::quantize_op as modelopt defines it, where it is not there."""
    library = torch.library.Library("tensorrt", "FRAGMENT")
    library.define(
        "quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, "
        "bool narrow_range) -> Tensor"
    )
    library.impl("quantize_op", lambda x, *_: torch.empty_like(x), "Meta")
    yield torch.ops.tensorrt.quantize_op.default
    library._destroy()


class ThereAndBack(torch.nn.Module):
    def __init__(self, amax: torch.Tensor, exponent_bits: int, narrow: bool = False) -> None:
        super().__init__()
        self.register_buffer("amax", amax)
        self.exponent_bits, self.narrow = exponent_bits, narrow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.tensorrt.quantize_op(
            x, self.amax, 8, self.exponent_bits, False, self.narrow
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (6, 1), (6,)], ids=str)
def test_modelopts_float8(quantize_op: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    amax, x = torch.rand(shape) + 1, (torch.randn(6, 40) * 2).to(dtype)
    got = compile_whole(ThereAndBack(amax, 4), x)(x)
    scale = 448 / (amax.reshape(6, 1) if shape == (6,) else amax)
    expected = (to_float8(x.float() * scale).float() * scale.reciprocal()).to(dtype)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrow"])
def test_modelopts_integers(quantize_op: object, narrow: bool) -> None:
    amax, x = torch.rand(6, 1) + 1, torch.randn(6, 40) * 2
    got = compile_whole(ThereAndBack(amax, 0, narrow), x)(x)
    scale = amax / 127
    expected = (x * scale.reciprocal()).round().clamp(-127 if narrow else -128, 127) * scale
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("block", [(1, 40), (6, 40), (3, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_torchaos_scales(block: tuple[int, int], dtype: torch.dtype) -> None:
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    choose = getattr(primitives, "_choose_scale_float8", None)
    if choose is None:
        pytest.skip("this torchao has no such operator")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return choose(x, list(block), hp_value_ub=3.0)

    x = (torch.randn(6, 40) * 2).to(dtype)
    assert torch.equal(compile_whole(Model(), x)(x), Model()(x))


def test_torchaos_float8() -> None:
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    there = getattr(primitives, "_quantize_affine_float8_non_decomposed", None)
    back = getattr(primitives, "_dequantize_affine_float8_non_decomposed", None)
    if there is None or back is None:
        pytest.skip("this torchao has no such operators")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
            q = there(x, scale, F8)
            return q, back(q, scale, torch.float32)

    x, scale = torch.randn(6, 40) * 3, torch.rand(6, 1) / 100
    got = compile_whole(Model(), x, scale)(x, scale)
    expected = Model()(x, scale)
    assert torch.equal(codes(got[0]), codes(expected[0]))
    torch.testing.assert_close(got[1], expected[1], rtol=0, atol=0)
