"""What Kiln quantises itself: against the same arithmetic in NumPy, and what is refused."""

import numpy as np
import pytest
import torch

import kiln
from kiln import Quantization

K, N = 64, 40


class Layers(torch.nn.Module):
    """One layer of each kind, each with an input of its own."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(K, N)
        self.matrix = torch.nn.Parameter(torch.randn(K, N))
        self.convolution = torch.nn.Conv2d(8, 16, 3, padding=1, bias=False)

    def forward(self, x, y, z):
        return self.linear(x), torch.matmul(y, self.matrix), self.convolution(z)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    torch.manual_seed(0)
    module = Layers().eval()
    with torch.no_grad():
        module.linear.weight[3] = 0  # a channel that has no scale
    batch = torch.export.Dim("batch", min=1, max=16)
    inputs = (torch.randn(4, K), torch.randn(4, K), torch.randn(4, 8, 6, 6))
    program = torch.export.export(module, inputs, dynamic_shapes=({0: batch},) * 3)
    path = tmp_path_factory.mktemp("post_training") / "layers.pt2"
    torch.export.save(program, path)
    return module, path


def inputs_of(seed, batch=4):
    random = np.random.default_rng(seed)
    shapes = (batch, K), (batch, K), (batch, 8, 6, 6)
    x, y, z = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, np.abs(y), np.zeros_like(z) if seed == 7 else z


def compiled(path, *arguments, **options):
    engine = kiln.compile(path, *arguments, num_threads=1, **options)
    return kiln.load(engine).session(num_threads=1)


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def rounded(x, scale, low, high, zero_point=0):
    level = np.round(x / scale) + zero_point
    return (np.clip(level, low, high) - zero_point) * scale


def as_int8(weight):
    """By output channel, the first axis."""
    scale = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(127)
    scale[scale == 0] = 1
    return rounded(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)), -127, 127)


def as_uint8(x, samples):
    low, high = min(samples.min(), 0.0), max(samples.max(), 0.0)
    scale = np.float32((high - low) / 255) if high > low else np.float32(1)
    return rounded(x, scale, 0, 255, np.round(-low / scale))


def weights_of(module):
    return (
        module.linear.weight.detach().numpy(),
        module.matrix.detach().numpy().T,
        module.convolution.weight.detach().numpy(),
    )


def forward(module, inputs, weights):
    """The layers without their biases, in f64."""
    x, y, z = (torch.from_numpy(np.asarray(each, np.float64)) for each in inputs)
    a, b, c = (torch.from_numpy(np.asarray(each, np.float64)) for each in weights)
    convolved = torch.nn.functional.conv2d(z, c, padding=1)
    return [(x @ a.T).numpy(), (y @ b.T).numpy(), convolved.numpy()]


def test_int8_is_the_arithmetic_of_its_scales(layers):
    module, path = layers
    samples = [inputs_of(seed) for seed in range(3)]
    session = compiled(
        path, quantize=Quantization("int8", calibration_method="minmax"), calibration=samples
    )
    seen = [np.concatenate(each) for each in zip(*samples, strict=True)]
    inputs, weights = inputs_of(9), weights_of(module)
    quantised = [as_int8(weight) for weight in weights]
    expected = forward(
        module, [as_uint8(x, s) for x, s in zip(inputs, seen, strict=True)], quantised
    )
    expected[0] += module.linear.bias.detach().numpy()
    # What is lost in the mean of the calibration inputs is added.
    for i, weight in enumerate(weights):
        rest = tuple(axis for axis in range(seen[i].ndim) if axis != 1)
        mean, kept = seen[i].mean(rest), as_uint8(seen[i], seen[i]).mean(rest)
        if weight.ndim == 4:
            lost = weight.sum((2, 3)) @ mean - quantised[i].sum((2, 3)) @ kept
            expected[i] += lost[:, None, None]
        else:
            expected[i] += weight @ mean - quantised[i] @ kept
    for actual, wanted in zip(session.run(*inputs), expected, strict=True):
        assert relative(actual, wanted) < 2e-4  # a number between two integers may go to either


def test_weights_alone(layers):
    module, path = layers
    inputs, weights = inputs_of(1), weights_of(module)
    actual = compiled(path, quantize="int8-weights").run(*inputs)
    expected = forward(module, inputs, [*map(as_int8, weights[:2]), weights[2]])
    expected[0] += module.linear.bias.detach().numpy()
    for one, other in zip(actual, expected, strict=True):
        assert relative(one, other) < 1e-5
    exact = forward(module, inputs, weights)
    for group, bound in ((8, 0.07), (-1, 0.14)):
        _, product, convolved = compiled(path, quantize=Quantization("int4-weights", group)).run(
            *inputs
        )
        assert 0.02 < relative(product, exact[1]) < bound, group
        assert relative(convolved, exact[2]) < 1e-5


def test_a_layer_whose_input_is_always_zero(layers):
    _, path = layers
    samples = [inputs_of(7)]
    *_, convolved = compiled(path, quantize="int8", calibration=samples).run(*samples[0])
    assert not convolved.any()


def test_excluded_layers_stay(layers):
    module, path = layers
    inputs = inputs_of(2)
    exclude = Quantization("int8", exclude="(linear|conv2d)")
    actual = compiled(
        path, quantize=exclude, calibration=[dict(zip("zyx", inputs[::-1], strict=True))]
    )
    with torch.no_grad():
        expected = [each.numpy() for each in module(*map(torch.from_numpy, inputs))]
    errors = [relative(a, b) for a, b in zip(actual.run(*inputs), expected, strict=True)]
    assert errors[0] < 1e-6 < 1e-3 < errors[1] and errors[2] < 1e-6, errors


def test_sets_may_be_stacked_and_decide_the_key(layers):
    _, path = layers
    samples = [inputs_of(seed) for seed in range(3)]
    stacked = [np.stack(each) for each in zip(*samples, strict=True)]
    one, other = (
        kiln.compile(path, num_threads=1, quantize="int8", calibration=c, targets="cpu:x86-64-v3")
        for c in (samples, [stacked])
    )
    assert bytes(one) == bytes(other)
    keys = [kiln.compile_key(path, quantize="int8", calibration=[s]) for s in samples]
    assert len({*keys, kiln.compile_key(path)}) == 4


def changed(index, value):
    inputs = list(inputs_of(0))
    inputs[index] = value
    return tuple(inputs)


def with_nan():
    z = inputs_of(0)[2].copy()
    z[1, 2, 3, 4] = np.nan
    return z


def int8(*calibration, method=None, group=None):
    quantize = Quantization("int8", group, calibration_method=method)
    return {"quantize": quantize, "calibration": calibration}


def weights(scheme, *more, **options):
    return {"quantize": Quantization(scheme, *more, **options)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (int8(), "without calibration inputs"),
        (weights("int7"), "expected one of int8, int8-weights, int4-weights"),
        ({"calibration": [inputs_of(0)]}, "options of quantisation without it"),
        (int8(inputs_of(0)[:2]), "got 2 inputs, expected 3: x, y, z"),
        (int8(changed(1, np.ones((4, 3), np.float32))), r"set 0: input y: got f32\[4, 3\]"),
        (int8(changed(0, np.ones((4, K)))), r"input x: got f64\[4, 64\]"),
        (int8(changed(0, inputs_of(0, 3)[0])), 'set 0: input "y" dim 0: got 4, expected 3'),
        (int8(changed(2, with_nan())), "input z: got infinite or NaN elements"),
        (int8({"x": 1, "y": 2, "w": 3}), 'got an input "w", expected each of x, y, z once'),
        (int8(inputs_of(0), method="max"), "mse, minmax, percentile"),
        (
            weights("int8-weights", exclude="no"),
            "that no layer has, expected some of linear, matmul",
        ),
        (weights("int8-weights", exclude=".*"), "leave no layer"),
        (weights("int8-weights", exclude="("), "expected a regular expression"),
        (weights("int4-weights", 12), "group size 12, expected a multiple of 8"),
        (int8(inputs_of(0), group=32), "group size 32 for int8"),
        ({"quantize": "int8-weights", "refittable": True}, "got refittable beside it"),
    ],
)
def test_what_is_refused(layers, tmp_path, options, message):
    output = tmp_path / "out.kiln"
    output.write_bytes(b"as it was")
    with pytest.raises((kiln.InvalidArgumentError, kiln.OutOfRangeError), match=message):
        kiln.compile(layers[1], output=output, **options)
    assert output.read_bytes() == b"as it was"


def test_no_layer_to_quantise_and_values_that_are_infinite(tmp_path):
    class Add(torch.nn.Module):
        def forward(self, x):
            return x + 1

    class Divide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(1 / x)

    x = torch.ones(2, 4)
    for module, options, message in (
        (Add(), {"quantize": "int8-weights"}, "without a layer to quantise"),
        (
            Divide().eval(),
            {"quantize": "int8", "calibration": [[np.ones((2, 4), np.float32)], [np.zeros((2, 4), np.float32)]]},
            "in front of the layer linear with calibration set 1",
        ),
    ):  # fmt: skip
        torch.export.save(torch.export.export(module, (x,)), tmp_path / "model.pt2")
        with pytest.raises(kiln.InvalidArgumentError, match=message):
            kiln.compile(tmp_path / "model.pt2", **options)


def test_a_quantised_engine_is_not_refitted(layers):
    engine = kiln.compile(layers[1], quantize="int8-weights", num_threads=1)
    assert kiln.inspect(engine)["quantized"] == "int8-weights"
    with pytest.raises(kiln.InvalidArgumentError, match="was quantised when it was compiled"):
        kiln.refit(engine, layers[1])
