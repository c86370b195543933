"""Runs the kernels that kiln_cuda_dump wrote, on a GPU, and compares them with PyTorch.

    python check.py FOLDER

FOLDER holds cases.json and, beside each .cu of it, its .cubin (compile.py). Outputs are poisoned with NaN
before a run, and every buffer lies between guard bytes that are checked after it.
"""

import ctypes
import json
import os
import pathlib
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cases  # noqa: E402

DTYPES = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "bool": torch.bool,
    "i64": torch.int64,
    "i32": torch.int32,
    "i8": torch.int8,
    "u8": torch.uint8,
    "f8e4m3": torch.float8_e4m3fn,
}
TOLERANCE = {"f16": 1e-3, "bf16": 8e-3, "f32": 1e-6, "f64": 1e-14, "f8e4m3": 2e-2}
# Of cases by what their names begin with: sums that may be rounded.
PREFIXES = {"tf32_": 1e-3, "f8_": 2e-3}
GUARD = 256
torch.zeros(1, device="cuda")  # PyTorch's context is the one in use
driver = ctypes.CDLL("libcuda.so.1")


def checked(result, what):
    if result != 0:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(result, ctypes.byref(name))
        raise RuntimeError(f"{what}: {name.value}")


class Kernel:
    def __init__(self, path):
        self.module, self.function = ctypes.c_void_p(), ctypes.c_void_p()
        image = pathlib.Path(path[:-3] + ".cubin").read_bytes()
        checked(driver.cuModuleLoadData(ctypes.byref(self.module), image), path)
        checked(
            driver.cuModuleGetFunction(ctypes.byref(self.function), self.module, b"kernel"), path
        )
        self.shared = 0  # bytes that it may have

    def launch(self, pointers, params, grid, block, shared, maps=()):
        values = [ctypes.c_void_p(p) for p in pointers] + [ctypes.c_longlong(p) for p in params]
        if 0 in grid:
            return
        values += [tensor_map(m, pointers[m["buffer"]]) for m in maps]
        array = (ctypes.c_void_p * len(values))(
            *[ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values]
        )
        grid, block = grid + [1] * (3 - len(grid)), block + [1] * (3 - len(block))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if shared > self.shared:
            checked(driver.cuFuncSetAttribute(self.function, 8, shared), "shared memory")
            self.shared = shared
        checked(
            driver.cuLaunchKernel(self.function, *grid, *block, shared, stream, array, None),
            "launch",
        )


class TensorMap(ctypes.Structure):
    _align_ = 64
    _fields_ = [("words", ctypes.c_uint64 * 16)]


def array(kind, numbers):
    return (kind * len(numbers))(*numbers)


def tensor_map(spec, pointer):
    """CUtensorMap of what the kernel asks for."""
    raw = ctypes.create_string_buffer(256)
    at = (ctypes.addressof(raw) + 63) // 64 * 64
    rank = len(spec["sizes"])
    common = (
        ctypes.c_void_p(at),
        {"f16": 6, "bf16": 9, "f32": 11, "u8": 0, "i8": 0, "f8e4m3": 0}[spec["dtype"]],
        rank,
        ctypes.c_void_p(pointer + spec["offset"][0]),
        array(ctypes.c_uint64, spec["sizes"]),
        array(ctypes.c_uint64, spec["strides"]),
    )
    steps = array(ctypes.c_uint32, spec["element_strides"] or [1] * rank)
    tail = (steps, 0, {0: 0, 32: 1, 64: 2, 128: 3}[spec["swizzle"]], 3, 0)
    if spec["lower_corner"]:
        result = driver.cuTensorMapEncodeIm2col(
            *common,
            array(ctypes.c_int, spec["lower_corner"]),
            array(ctypes.c_int, spec["upper_corner"]),
            spec["box_channels"],
            spec["box_pixels"],
            *tail,
        )
    else:
        result = driver.cuTensorMapEncodeTiled(*common, array(ctypes.c_uint32, spec["box"]), *tail)
    checked(result, f"tensor map {spec}")
    return (ctypes.c_char * 128).from_buffer_copy(ctypes.string_at(at, 128))


class Guarded:
    """A tensor between bytes that nobody may write, at an odd place in memory if `shift`."""

    def __init__(self, dtype, shape, shift):
        size = torch.empty(0, dtype=dtype).element_size()
        count = 1
        for extent in shape:
            count *= extent
        self.begin = GUARD + (size if shift else 0)
        self.end = self.begin + count * size
        self.bytes = torch.full((self.end + GUARD + size,), 0xFF, dtype=torch.uint8, device="cuda")
        assert self.bytes.data_ptr() % 256 == 0
        self.tensor = self.bytes[self.begin : self.end].view(dtype).view(shape)

    def intact(self):
        return bool((self.bytes[: self.begin] == 0xFF).all()) and bool(
            (self.bytes[self.end :] == 0xFF).all()
        )


def random_tensor(dtype, shape, generator):
    if dtype == torch.bool:
        return torch.rand(shape, device="cuda", generator=generator) < 0.6
    if dtype in (torch.uint8, torch.int8):
        info = torch.iinfo(dtype)
        return torch.randint(
            info.min, info.max + 1, shape, device="cuda", generator=generator, dtype=torch.int32
        ).to(dtype)
    return (torch.rand(shape, device="cuda", generator=generator, dtype=torch.float32) * 2 - 1).to(
        dtype
    )


def load(folder, entry):
    dtype = DTYPES[entry["dtype"]]
    data = pathlib.Path(folder, entry["file"]).read_bytes()
    if not data:
        return torch.empty(entry["shape"], dtype=dtype, device="cuda")
    return (
        torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).view(entry["shape"]).cuda()
    )


def error_of(got, expected):
    got, expected = got.double(), expected.double()
    finite = torch.isfinite(expected)
    if not torch.equal(torch.isnan(got), torch.isnan(expected)):
        return float("nan")
    if not torch.equal(
        got[~finite & ~torch.isnan(expected)], expected[~finite & ~torch.isnan(expected)]
    ):
        return float("inf")
    norm = expected[finite].norm()
    return (
        float((got[finite] - expected[finite]).norm() / norm.clamp(min=1e-30))
        if norm > 0
        else float(got[finite].abs().sum())
    )


class Case:
    def __init__(self, folder, case, reference):
        self.case, self.reference = case, reference
        self.kernels = [Kernel(os.path.join(folder, kernel["file"])) for kernel in case["kernels"]]
        self.constants = {name: load(folder, entry) for name, entry in case["constants"].items()}
        self.data = [load(folder, b["data"]) if "data" in b else None for b in case["buffers"]]
        self.derived = [
            [b if isinstance(b, int) else load(folder, b) for b in kernel["buffers"]]
            for kernel in case["kernels"]
        ]

    def run(self, run, shift, special=False):
        generator = torch.Generator("cuda").manual_seed(3)
        buffers, inputs = [], {}
        # The copy engine reads at multiples of 16 bytes alone: other inputs are copied before a run.
        mapped = {
            operands[m["buffer"]]
            for launch, operands in zip(run["launches"], self.derived, strict=False)
            for m in launch["maps"]
            if isinstance(operands[m["buffer"]], int)
        }
        for buffer, shape, data in zip(
            self.case["buffers"], run["shapes"], self.data, strict=False
        ):
            if buffer["alias_of"] >= 0:
                buffers.append(buffers[buffer["alias_of"]])
                continue
            dtype = DTYPES[buffer["dtype"]]
            guarded = Guarded(
                dtype, shape, shift and buffer["kind"] < 2 and len(buffers) not in mapped
            )
            buffers.append(guarded)
            if buffer["kind"] == 0:
                guarded.tensor.copy_(random_tensor(dtype, shape, generator))
                # The first input alone: what is masked out of the others is zero times it, or not read at all.
                if (
                    special
                    and not inputs
                    and dtype.is_floating_point
                    and guarded.tensor.numel() > 40
                ):
                    flat = guarded.tensor.view(-1)
                    flat[7], flat[23], flat[31] = float("nan"), float("inf"), -float("inf")
                inputs[buffer["name"]] = guarded.tensor.clone()
            elif data is not None:
                guarded.tensor.copy_(data)
        keep = []
        for kernel, launch, operands in zip(
            self.kernels, run["launches"], self.derived, strict=False
        ):
            tensors = [buffers[b].tensor if isinstance(b, int) else b for b in operands]
            keep.append(tensors)
            kernel.launch(
                [t.data_ptr() for t in tensors],
                launch["params"],
                launch["grid"],
                launch["block"],
                launch["shared"][0],
                launch["maps"],
            )
        torch.cuda.synchronize()
        problems = []
        if not all(b.intact() for b in buffers):
            problems.append("stray write")
        out = next(b for b, s in zip(buffers, self.case["buffers"], strict=False) if s["kind"] == 1)
        dtype = next(b["dtype"] for b in self.case["buffers"] if b["kind"] == 1)
        named = {**inputs, **self.constants}
        order = self.reference.__code__.co_varnames[: self.reference.__code__.co_argcount]
        wide = [
            named["m" if n == "mask" else n]
            for n in order
            if n in named or (n == "mask" and "m" in named)
        ]
        wide = [t.double() if t.dtype.is_floating_point else t for t in wide]
        expected = self.reference(*wide).to(out.tensor.dtype)
        error = error_of(out.tensor, expected.contiguous().view(out.tensor.shape))
        prefix = next((p for p in PREFIXES if self.case["name"].startswith(p)), "")
        if not error <= max(TOLERANCE[dtype], PREFIXES[prefix] if prefix else 0):
            problems.append(f"error {error:.2e}")
        for launch in run["launches"]:
            for buffer, writes in launch["writes"].items():
                blocks = 1
                for extent in launch["grid"]:
                    blocks *= extent
                elements = buffers[int(buffer)].tensor.numel()
                if blocks * writes < elements:
                    problems.append(f"{blocks} blocks of {writes} writes for {elements}")
        return error, problems


def main(folder, pattern=""):
    references = {name: reference for name, _, _, reference in cases.build()}
    failed, worst, count = 0, {}, 0
    for case in json.loads(pathlib.Path(folder, "cases.json").read_text()):
        if pattern not in case["name"]:
            continue
        try:
            loaded = Case(folder, case, references[case["name"]])
        except RuntimeError as error:
            print("FAILED", case["name"], error)
            failed += 1
            continue
        for run in case["runs"]:
            for shift, special in ((False, False), (True, False), (False, True)):
                # Integers have no such numbers.
                if special and case["name"].startswith("i8"):
                    continue
                # Of convolutions, those of few channels: their tiles have what no filter sees.
                if special and "conv_" in case["name"] and "window" not in case["name"]:
                    continue
                count += 1
                try:
                    error, problems = loaded.run(run, shift, special)
                except RuntimeError as exception:
                    print("FAILED", case["name"], run["shapes"], exception)
                    if "launch" in str(exception) or "CUDA" in str(exception):
                        return 2
                    failed += 1
                    continue
                family = (
                    case["name"].split("_")[0]
                    + " "
                    + next(b["dtype"] for b in case["buffers"] if b["kind"] == 1)
                )
                if error == error:
                    worst[family] = max(worst.get(family, 0), error)
                if problems:
                    failed += 1
                    if failed < 60:
                        print(
                            "FAILED",
                            case["name"],
                            [
                                s
                                for b, s in zip(case["buffers"], run["shapes"], strict=False)
                                if b["kind"] < 2
                            ],
                            "shifted" if shift else "",
                            "special" if special else "",
                            *problems,
                        )
    print(
        f"{count} runs, {failed} failed; worst errors",
        {k: f"{v:.1e}" for k, v in sorted(worst.items())},
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
