"""Quantised models as PT2E and torchao leave them: compiled whole, and as close to eager as one step of a quantiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - defines quantized_decomposed

import kiln
import torch_tensorrt

q = torch.ops.quantized_decomposed
STEP = 1 / 64  # of activations
PADDING = 30_000  # bytes of two small layers


class Small(torch.nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.linear = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


def quantised_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed 8 bits for each output channel, and the scales."""
    scales = weight.abs().amax(tuple(range(1, weight.dim()))) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    return q.quantize_per_channel(weight, scales, zeros, 0, -127, 127, torch.int8), scales


class Quantised(torch.nn.Module):
    """`Small` as convert_pt2e writes it: integers in buffers, a quantiser and its inverse around each layer."""

    def __init__(self, model: Small, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.activation = activation
        for name in ("conv", "linear"):
            layer = getattr(model, name)
            weight, scales = quantised_weight(layer.weight.detach())
            self.register_buffer(f"{name}_weight", weight)
            self.register_buffer(f"{name}_scales", scales)
            self.register_buffer(f"{name}_zeros", torch.zeros(len(scales), dtype=torch.int64))
            self.register_buffer(f"{name}_bias", layer.bias.detach())

    def weight(self, name: str) -> torch.Tensor:
        buffers = (getattr(self, f"{name}_{part}") for part in ("weight", "scales", "zeros"))
        return q.dequantize_per_channel(*buffers, 0, -127, 127, torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(x)
        x = torch.nn.functional.conv2d(x, self.weight("conv"), self.conv_bias, padding=1)
        x = self.activation(torch.relu(x).mean((2, 3)))
        return torch.nn.functional.linear(x, self.weight("linear"), self.linear_bias)


def static(x: torch.Tensor) -> torch.Tensor:
    y = q.quantize_per_tensor(x, STEP, 128, 0, 255, torch.uint8)
    return q.dequantize_per_tensor(y, STEP, 128, 0, 255, torch.uint8)


def dynamic(x: torch.Tensor) -> torch.Tensor:
    scale, zero = q.choose_qparams.tensor(x, 0, 255, 2**-12, torch.uint8)
    y = q.quantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
    return q.dequantize_per_tensor.tensor(y, scale, zero, 0, 255, torch.uint8)


def per_token(x: torch.Tensor) -> torch.Tensor:
    scale, zero = q.choose_qparams_per_token_asymmetric(x, torch.int8)
    y = q.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
    return q.dequantize_per_token(y, scale, zero, -128, 127, torch.int8, torch.float32)


def weight_only(x: torch.Tensor) -> torch.Tensor:
    return x


def image(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def compile_whole(
    model: torch.nn.Module, *args: torch.Tensor, **options: object
) -> torch.nn.Module:
    """Everything in one engine, from the graph that torch.export gives."""
    with torch.no_grad():
        program = torch.export.export(model, args, strict=False)
    return torch_tensorrt.dynamo.compile(
        program, arg_inputs=args, require_full_compilation=True, **options
    )


def assert_close(got: torch.Tensor, expected: torch.Tensor, step: float) -> None:
    """Most numbers fall on the same side of every rounding; one that does not is a step away."""
    distance = (got - expected).abs()
    assert distance.median() <= 1e-5
    assert distance.max() <= step


def step_of(model: torch.nn.Linear, step: float = STEP) -> float:
    """What one step of one activation makes of the largest result."""
    return float(model.weight.abs().max()) * step + 1e-5


@pytest.fixture
def small() -> Small:
    torch.manual_seed(3)
    return Small().eval()


@pytest.mark.parametrize("activation", [static, dynamic, per_token, weight_only])
@torch.no_grad()
def test_a_quantised_model_is_one_engine(small: Small, activation) -> None:
    model = Quantised(small, activation).eval()
    compiled = compile_whole(model, image())
    for seed in range(5):
        x = image(seed=seed)
        assert_close(compiled(x), model(x), step_of(small.linear, 2 * STEP))


@torch.no_grad()
def test_quantisers_are_exact() -> None:
    """Nothing but the quantiser between input and output: no sums, whose order is free."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = q.quantize_per_tensor(x, 0.037, 3, -128, 127, torch.int8)
            return y, q.dequantize_per_tensor(y, 0.037, 3, -128, 127, torch.int8), dynamic(x)

    x = torch.cat([torch.randn(997) * 3, torch.arange(-40, 40) * 0.0185])
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    x = torch.cat([x, torch.zeros(3)])
    compiled = compile_whole(Model(), x)
    for got, expected in zip(compiled(x), Model()(x), strict=True):
        assert torch.equal(got, expected)
    x[-4:] = special
    for got, expected in zip(compiled(x)[:2], Model.forward(Model(), x[:-4])[:2], strict=True):
        assert torch.equal(got[:-4], expected)
    nan, high, low, zero = compiled(x)[0][-4:].tolist()
    assert (nan, high, low, zero) == (0, 127, -128, 3)


@torch.no_grad()
def test_weights_of_linear_layers_stay_in_8_bits() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 256).eval()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight, scales = quantised_weight(linear.weight.detach())
            self.register_buffer("weight", weight)
            self.register_buffer("scales", scales)
            self.register_buffer("bias", linear.bias.detach())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = q.dequantize_per_channel(
                self.weight, self.scales, None, 0, -127, 127, torch.int8
            )
            return torch.nn.functional.linear(x, weight, self.bias)

    x = torch.randn(4, 256)
    program = torch.export.export(Model(), (x,), strict=False)
    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        program, arg_inputs=(x,)
    )
    full = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        torch.export.export(linear, (x,)), arg_inputs=(x,)
    )
    assert len(full) - len(engine) > 0.7 * linear.weight.nbytes
    compiled = compile_whole(Model(), x)
    torch.testing.assert_close(compiled(x), Model()(x), rtol=1e-4, atol=1e-5)


class Grouped(torch.nn.Module):
    """A linear layer with weights of 4 bits in groups of 32."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer(
            "weight", torch.randint(-8, 8, (16, 64), generator=generator, dtype=torch.int8)
        )
        self.register_buffer("scales", torch.rand(16, 2, generator=generator) / 10)
        self.register_buffer("zeros", torch.zeros(16, 2, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = q.dequantize_per_channel_group(
            self.weight, self.scales, self.zeros, -8, 7, torch.int8, 32, torch.float32
        )
        return torch.nn.functional.linear(x, weight)


@torch.no_grad()
def test_groups_of_4_bits() -> None:
    x = torch.randn(3, 64)
    compiled = compile_whole(Grouped(), x)
    torch.testing.assert_close(compiled(x), Grouped()(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_dynamic_batch(small: Small) -> None:
    model = Quantised(small, per_token).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(model, (image(4),), dynamic_shapes=({0: batch},), strict=False)
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=(image(4),), require_full_compilation=True
    )
    for size in (1, 5, 16):
        x = image(size, seed=size)
        assert_close(compiled(x), model(x), step_of(small.linear, 2 * STEP))


def pt2e(model: torch.nn.Module, x: torch.Tensor, is_dynamic: bool) -> torch.nn.Module:
    """The model through torchao's PT2E flow."""
    flow = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=is_dynamic))
    prepared = flow.prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    prepared(x)
    return flow.convert_pt2e(prepared)


@pytest.mark.parametrize("is_dynamic", [False, True])
@torch.no_grad()
def test_what_pt2e_converts_is_one_engine(small: Small, is_dynamic: bool) -> None:
    converted = pt2e(small, image(), is_dynamic)
    compiled = compile_whole(converted, image())
    for seed in range(3):
        x = image(seed=seed)
        assert_close(compiled(x), converted(x), step_of(small.linear, 2 * STEP))


def engine_of(model: torch.nn.Module, *args: torch.Tensor) -> bytes:
    """The model as one engine."""
    program = torch.export.export(model, args)
    return bytes(
        torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, arg_inputs=args
        )
    )


def multiplies_integers(engine: bytes) -> bool:
    """Whether there is a program for CPUs that multiply bytes: engines without such products have none."""
    variants = {program["variant"] for program in kiln.inspect(engine)["programs"]}
    assert {"x86-64-v3", "x86-64-v4"} <= variants
    return {"x86-64-v4-vnni", "x86-64-v3-vnni"} <= variants


@pytest.mark.parametrize("is_dynamic", [False, True])
@torch.no_grad()
def test_what_pt2e_converts_multiplies_integers(small: Small, is_dynamic: bool) -> None:
    assert multiplies_integers(engine_of(pt2e(small, image(), is_dynamic), image()))
    assert not multiplies_integers(engine_of(small, image()))


def layers() -> torch.nn.Module:
    torch.manual_seed(5)
    nn = torch.nn
    return nn.Sequential(nn.Linear(264, 512), nn.ReLU(), nn.Linear(512, 40)).eval()


@pytest.mark.parametrize(
    "config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]
)
@torch.no_grad()
def test_models_that_torchao_quantises(config: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model, x = layers(), torch.randn(5, 264)
    full = engine_of(model, x)
    quantization.quantize_(model, getattr(quantization, config)())
    compiled = compile_whole(model, x)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    engine = engine_of(model, x)
    weights = 4 * 512 * (264 + 40)  # bytes in f32
    assert len(full) - len(engine) > 0.5 * weights
    assert multiplies_integers(engine) == (config != "Int8WeightOnlyConfig")


@pytest.mark.parametrize(
    ("weight", "size", "dtype", "asymmetric"),
    [
        (torch.int4, 32, torch.float32, False),
        (torch.int4, 128, torch.float32, True),
        (torch.int4, 0, torch.float32, True),
        (torch.int4, 32, torch.bfloat16, False),
        (torch.int8, 64, torch.float32, True),
    ],
)
@torch.no_grad()
def test_weights_of_few_bits_stay_so(
    weight: torch.dtype, size: int, dtype: torch.dtype, asymmetric: bool, tmp_path: Path
) -> None:
    """One row, few and many of a dynamic length, from a file of each kind."""
    quantization = pytest.importorskip("torchao.quantization")
    granularity = pytest.importorskip("torchao.quantization.granularity")
    kind = pytest.importorskip("torchao.quantization.quant_primitives").MappingType
    torch.manual_seed(5)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 40)).eval().to(dtype)
    config = quantization.IntxWeightOnlyConfig(
        weight_dtype=weight,
        granularity=granularity.PerGroup(size) if size else granularity.PerAxis(0),
        mapping_type=kind.ASYMMETRIC if asymmetric else kind.SYMMETRIC,
    )
    quantization.quantize_(model, config)
    length = torch.export.Dim("length", min=1, max=64)
    program = torch.export.export(
        model, (torch.randn(3, 256, dtype=dtype),), dynamic_shapes=({0: length},)
    )
    shapes = {"min_shape": (1, 256), "opt_shape": (1, 256), "max_shape": (64, 256)}
    inputs = [torch_tensorrt.Input(**shapes, dtype=dtype)]
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, require_full_compilation=True
    )
    torch_tensorrt.save(compiled, tmp_path / "model.ep", arg_inputs=inputs)
    engine = bytes(compiled.engine_0.numpy().data)
    (tmp_path / "model.kiln").write_bytes(engine)
    loaded = torch_tensorrt.load(tmp_path / "model.ep").module()
    session = kiln.load(tmp_path / "model.kiln").session(num_threads=1)
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for rows in (1, 3, 8, 40):
        x = torch.randn(rows, 256, dtype=dtype)
        expected = model(x)
        results = [compiled(x), loaded(x)]
        if dtype == torch.float32:
            results.append(torch.from_numpy(session.run(x.numpy())[0]))
        for got in results:
            assert (got - expected).norm() <= bound * expected.norm()
    elements = 512 * (256 + 40)
    groups = elements // size if size else 552
    bits = 4 if weight == torch.int4 else 8
    # Weights, scales and zero points, in panels of 32 columns.
    weights = kiln.inspect(engine)["memory"]["weights_bytes"]
    assert elements * bits // 8 < weights
    assert weights < elements * bits // 8 + groups * (dtype.itemsize + 1) + PADDING


@torch.no_grad()
def test_weights_of_few_bits_are_refitted() -> None:
    """Integers, scales and zero points, as long as they are stored alike."""
    x, compiled = (
        torch.randn(3, 64),
        compile_whole(Grouped(), torch.randn(3, 64), immutable_weights=False),
    )
    new = Grouped()
    new.weight = -new.weight.clamp(-7, 7)
    new.scales *= 3
    refit = torch_tensorrt.dynamo.refit_module_weights
    refitted = refit(compiled, torch.export.export(new, (x,)))
    torch.testing.assert_close(refitted(x), new(x), rtol=1e-4, atol=1e-4)
    new.scales[1, 1] = float("inf")
    with pytest.raises(ValueError, match="cannot be refitted"):
        refit(compiled, torch.export.export(new, (x,)))


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan"), 3e38])
@torch.no_grad()
def test_scales_that_are_no_usual_numbers(value: float) -> None:
    model = Grouped()
    model.scales[3, 1] = value
    x = torch.randn(3, 64)
    torch.testing.assert_close(
        compile_whole(model, x)(x), model(x), rtol=1e-4, atol=1e-4, equal_nan=True
    )


@pytest.mark.parametrize("dtypes", [(torch.uint8, torch.int8), (torch.int8, torch.int8)])
@torch.no_grad()
def test_int_mm_is_exact(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """The largest sums that there are, and any."""
    left, right = dtypes
    weight = torch.randint(-128, 128, (67, 33), dtype=right)
    weight[:, 0], weight[:, 1] = 127, -128

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch._int_mm(x, self.weight)

    info = torch.iinfo(left)
    x = torch.randint(info.min, info.max + 1, (20, 67)).to(left)
    x[0], x[1] = info.max, info.min
    compiled = compile_whole(Model(), x)
    assert torch.equal(compiled(x), (x.long() @ weight.long()).int())


def test_what_the_model_optimizer_writes() -> None:
    """Its operator rounds to what integers stand for: amax is that of all of x, or of each filter."""
    library = torch.library.Library("tensorrt", "FRAGMENT")  # as the package itself defines it
    library.define(
        "quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, bool narrow_range)"
        " -> Tensor"
    )

    def rounded(x, amax, num_bits, exponent_bits, unsigned, narrow_range):
        high = 2 ** (num_bits - 1 + int(unsigned)) - 1
        low = 0 if unsigned else -high - int(not narrow_range)
        return torch.clamp(torch.round(x * (1 / (amax / high))), low, high) * (amax / high)

    library.impl("quantize_op", rounded, "CompositeExplicitAutograd")
    library.impl("quantize_op", lambda x, *_: torch.empty_like(x), "Meta")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32, 16)
            self.register_buffer("amax", torch.tensor(2.5))
            self.register_buffer("weight_amax", self.linear.weight.detach().abs().amax(1, True))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            op = torch.ops.tensorrt.quantize_op
            weight = op(self.linear.weight, self.weight_amax, 8, 0, False, True)
            return torch.nn.functional.linear(
                op(x, self.amax, 8, 0, False, False), weight, self.linear.bias
            )

    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(7, 32)
    with torch.no_grad():
        compiled = compile_whole(model, x)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
        assert multiplies_integers(engine_of(model, x))


@torch.no_grad()
def test_torchao_affine_operators() -> None:
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            block = (1, x.shape[-1])
            scale, zero = primitives.choose_qparams_affine(
                x, primitives.MappingType.ASYMMETRIC, block, torch.int8
            )
            y = primitives.quantize_affine(x, block, scale, zero, torch.int8)
            return y, primitives.dequantize_affine(y, block, scale, zero, torch.int8)

    x = torch.randn(5, 32)
    compiled = compile_whole(Model(), x)
    for got, expected in zip(compiled(x), Model()(x), strict=True):
        assert torch.equal(got, expected)
