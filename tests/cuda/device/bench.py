# ruff: noqa: E501 (graphs are texts of long lines)
"""Times the kernels of contractions against what PyTorch calls for the same, on a GPU.

    python bench.py FOLDER

FOLDER as for check.py, made of `python bench.py --write FILE`. Each side is a CUDA graph of calls over sets of tensors that
together are larger than the cache; the sides alternate; the median of the replays counts.
"""

import json
import os
import pathlib
import statistics
import sys

import torch
import torch.nn.functional as F  # noqa: N812

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
CASES = []


# "tf32": elements of f32 that both sides may round.
def linear(m, n, k, epilogue, dtype="f16"):
    prefix, dtype = ("tf32_", "f32") if dtype == "tf32" else ("", dtype)
    x, v, b, r = (
        f"%x: {dtype}[m, {k}]",
        f"%v: {dtype}[{n}, {k}]",
        f"%b: {dtype}[{n}]",
        f"%r: {dtype}[m, {n}]",
    )
    if dtype == "f16" or prefix:  # operands that are temporaries, as in a model
        x, v = f"%x0: {dtype}[m, {k}]", f"%v0: {dtype}[{n}, {k}]"
    symbols = f"symbols m in [1, 1000000] opt {m}"
    if epilogue == "bias":
        text, run = f"graph main({x}, {v}, {b}) {symbols} {{\n  %y = linear(%x, %v, %b)\n", F.linear
    elif epilogue == "gelu":
        text = f'graph main({x}, {v}, {b}) {symbols} {{\n  %l = linear(%x, %v, %b)\n  %y = gelu(%l) {{approximate = "none"}}\n'

        def run(x, v, b):
            return F.gelu(F.linear(x, v, b))
    elif epilogue == "res":
        text = f"graph main({x}, {v}, {b}, {r}) {symbols} {{\n  %l = linear(%x, %v, %b)\n  %y = add(%l, %r)\n"

        def run(x, v, b, r):
            return torch.addmm(r, x, v.t())
    else:
        text, run = f"graph main({x}, {v}) {symbols} {{\n  %y = linear(%x, %v)\n", F.linear
    if dtype == "f16" or prefix:
        text = text.replace(" {\n", " {\n  %x = relu(%x0)\n  %v = relu(%v0)\n", 1)
    CASES.append(
        (
            f"{prefix}linear_{m}_{n}_{k}_{epilogue}_{dtype}",
            text + '  return %y as "y"\n}',
            {"m": m},
            run,
            2 * m * n * k,
        )
    )


def row(n, k):
    CASES.append(
        (
            f"row_{n}_{k}",
            f'graph main(%x: f16[1, {k}], %v: f16[{n}, {k}]) {{\n  %y = linear(%x, %v)\n  return %y as "y"\n}}',
            {},
            F.linear,
            2 * n * k,
        )
    )


def float8(m, n, k, out="f16", fast=True):
    """Numbers of f8e4m3 with a scale for each row and column; PyTorch's product with fast sums or without."""
    rows = f"m in [1, 1000000] opt {m}"

    def run(x, v, s, t):
        return torch._scaled_mm(x, v.t(), s, t.t(), out_dtype=torch.bfloat16, use_fast_accum=fast)

    name = f"float8{'' if fast else '_slow'}_{m}_{n}_{k}_{out}"
    size = "1" if m == 1 else "m"
    CASES.append(
        (
            name,
            f"""graph main(%x: f8e4m3[{size}, {k}], %v: f8e4m3[{n}, {k}], %s: f32[{size}, 1], %t: f32[{n}, 1]) {"" if m == 1 else "symbols " + rows} {{
  %c = cast(%x) {{dtype = f32}}
  %a = mul(%c, %s)
  %d = cast(%v) {{dtype = f32}}
  %b = mul(%d, %t)
  %l = linear(%a, %b)
  %y = cast(%l) {{dtype = {out}}}
  return %y as "y"
}}""",
            {} if m == 1 else {"m": m},
            run,
            2 * m * n * k,
        )
    )


def float8_weight(n, k):
    """A row of f16 times weights of f8e4m3; PyTorch's product with weights of f16."""

    def run(x, w, w2):
        return F.linear(x, w)

    CASES.append(
        (
            f"float8_weight_{n}_{k}",
            f"""graph main(%x: f16[1, {k}], %w: f8e4m3[{n}, {k}], %w2: f32[{n}, 1]) {{
  %d = cast(%w) {{dtype = f32}}
  %e = mul(%d, %w2)
  %b = cast(%e) {{dtype = f16}}
  %y = linear(%x, %b)
  return %y as "y"
}}""",
            {},
            run,
            2 * n * k,
        )
    )


def integers(m, n, k):
    CASES.append(
        (
            f"integers_{m}_{n}_{k}",
            f"""graph main(%x: u8[m, {k}], %v: i8[{n}, {k}]) symbols m in [1, 1000000] opt {m} {{
  %a = cast(%x) {{dtype = f32}}
  %b = cast(%v) {{dtype = f32}}
  %y = linear(%a, %b)
  return %y as "y"
}}""",
            {"m": m},
            lambda x, v: torch._int_mm(x.view(torch.int8), v.t()),
            2 * m * n * k,
        )
    )


def attention(b, h, g, s, t, d, causal):
    def run(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=g > 1)

    CASES.append(
        (
            f"attention_{b}_{h * g}_{h}_{s}_{t}_{d}_{causal}",
            f"""graph main(%q: f16[b, {h * g}, s, {d}], %k: f16[b, {h}, t, {d}], %v: f16[b, {h}, t, {d}]) symbols b in [1, 40] opt {b}, s in [1, 5000] opt {s}, t in [1, 5000] opt {t} {{
  %y = attention(%q, %k, %v) {{scale = {d**-0.5}, causal = {str(causal).lower()}}}
  return %y as "y"
}}""",
            {"b": b, "s": s, "t": t},
            run,
            4 * b * h * g * s * t * d,
        )
    )


def convolution(n, size, c, o, kernel, stride, pad, dtype="f16"):
    prefix = "" if dtype == "f16" else dtype + "_"
    dtype = dtype.removeprefix("t")

    def run(x, w, w2):
        return F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), w2, stride, pad)

    out = (size + 2 * pad - kernel) // stride + 1
    # The input is a temporary, as in a model; that of a stem is the caller's.
    x, first = ("%x", "") if c < 8 else ("%x0", "  %x = relu(%x0)\n")
    CASES.append(
        (
            f"{prefix}conv_{n}_{size}_{c}_{o}_{kernel}_{stride}",
            f"""graph main({x}: {dtype}[n, {size}, {size}, {c}], %w: {dtype}[{o}, {kernel}, {kernel}, {c}], %w2: {dtype}[{o}]) symbols n in [1, 300] opt {n} {{
{first}  %y = convolution(%x, %w, %w2) {{stride = [{stride}, {stride}], padding_before = [{pad}, {pad}], padding_after = [{pad}, {pad}], dilation = [1, 1], groups = 1, layout = "nhwc"}}
  return %y as "y"
}}""",
            {"n": n},
            run,
            2 * n * out * out * o * c * kernel * kernel,
        )
    )


def build():
    for m, n, k, epilogue in (
        (4096, 768, 768, "res"),
        (4096, 2304, 768, "bias"),
        (4096, 3072, 768, "gelu"),
        (4096, 768, 3072, "res"),
        (6304, 3072, 768, "gelu"),
        (6304, 768, 3072, "res"),
        (512, 2048, 2048, "res"),
        (512, 2048, 8192, "res"),
        (512, 3072, 2048, "none"),
        (512, 16384, 2048, "none"),
        (1500, 2304, 768, "bias"),
        (1500, 768, 768, "res"),
        (1500, 3072, 768, "gelu"),
        (1500, 768, 3072, "res"),
        (128, 768, 768, "bias"),
        (128, 2304, 768, "bias"),
        (128, 3072, 768, "gelu"),
        (128, 768, 3072, "res"),
        (197, 2304, 768, "bias"),
        (197, 768, 3072, "res"),
        (16, 4096, 4096, "none"),
        (4, 4096, 4096, "none"),
    ):
        linear(m, n, k, epilogue)
    linear(512, 512, 512, "none", "f64")
    for dtype in ("f32", "tf32"):
        for m, n, k in (
            (4096, 768, 768),
            (4096, 3072, 768),
            (4096, 768, 3072),
            (1024, 1024, 1024),
            (512, 2048, 2048),
            (128, 768, 768),
            (128, 768, 3072),
            (16, 4096, 4096),
        ):
            linear(m, n, k, "bias", dtype)
    for m, n, k in (
        (4096, 4096, 4096),
        (8192, 8192, 8192),
        (4096, 3072, 768),
        (4096, 768, 3072),
        (512, 2048, 2048),
        (512, 2048, 8192),
        (512, 16384, 2048),
        (128, 768, 768),
        (128, 3072, 768),
        (16, 4096, 4096),
    ):
        float8(m, n, k)
    float8(4096, 4096, 4096, fast=False)
    float8(4096, 4096, 4096, "f32")
    for n, k in ((2048, 2048), (2048, 8192), (16384, 2048), (128256, 2048)):
        float8(1, n, k)
        float8_weight(n, k)
    for m, n, k in ((4096, 4096, 4096), (4096, 3072, 768), (512, 2048, 8192)):
        integers(m, n, k)
    row(3072, 768)
    row(3072, 2048)
    row(2048, 2048)
    row(2048, 8192)
    row(768, 3072)
    row(16384, 2048)
    row(128256, 2048)
    for arguments in (
        (32, 12, 1, 128, 128, 64, False),
        (32, 12, 1, 197, 197, 64, False),
        (1, 12, 1, 128, 128, 64, False),
        (1, 8, 4, 512, 512, 64, True),
        (8, 8, 4, 512, 512, 64, True),
        (1, 8, 4, 1, 2048, 64, False),
        (8, 8, 4, 1, 2048, 128, False),
        (2, 16, 1, 2048, 2048, 128, True),
        (2, 16, 1, 2048, 2048, 64, False),
        (1, 8, 4, 512, 512, 128, True),
        (8, 8, 4, 512, 512, 128, True),
        (8, 12, 1, 384, 384, 64, False),
        (2, 8, 1, 4096, 77, 64, False),
    ):
        attention(*arguments)
    for n in (32, 1, 128):
        convolution(n, 224, 3, 64, 7, 2, 3)
        for size, c in ((56, 64), (28, 128), (14, 256), (7, 512)):
            convolution(n, size, c, c, 3, 1, 1)
        for size, c in ((56, 128), (28, 256), (14, 512)):
            convolution(n, size, c, c, 3, 2, 1)
            convolution(n, size, 2 * c, 4 * c, 1, 2, 0)
    for dtype in ("f32", "tf32"):
        convolution(32, 224, 3, 64, 7, 2, 3, dtype)
        for size, c in ((56, 64), (28, 128), (14, 256), (7, 512)):
            convolution(32, size, c, c, 3, 1, 1, dtype)
        convolution(32, 56, 256, 512, 1, 2, 0, dtype)
        convolution(1, 14, 256, 256, 3, 1, 1, dtype)
    return CASES


def measure(sides, repeats=11):
    graphs = {}
    for name, calls in sides.items():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for call in calls[:2]:
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        graph.replay()
        graphs[name] = (graph, len(calls), [])
    torch.cuda.synchronize()
    for _ in range(repeats):
        for graph, count, times in graphs.values():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / count)
    return {name: statistics.median(times) for name, (_, _, times) in graphs.items()}


class Side:
    """The kernels of a case, and what PyTorch calls for it."""

    def __init__(self, folder, case, run):
        from check import Kernel, load

        self.case, self.run = case, run
        self.kernels = [Kernel(os.path.join(folder, kernel["file"])) for kernel in case["kernels"]]
        self.derived = [
            [b if isinstance(b, int) else load(folder, b) for b in kernel["buffers"]]
            for kernel in case["kernels"]
        ]
        self.constants = {name: load(folder, entry) for name, entry in case["constants"].items()}
        # PyTorch has no products of f16 and float8.
        self.peer_constants = [
            w.half() if w.dtype == torch.float8_e4m3fn else w for w in self.constants.values()
        ]
        self.data = [load(folder, b["data"]) if "data" in b else None for b in case["buffers"]]

    def make_set(self, generator):
        from check import DTYPES, random_tensor

        shapes = self.case["runs"][0]["shapes"]
        return [
            random_tensor(DTYPES[buffer["dtype"]], shape, generator)
            if data is None
            else data.clone()
            for buffer, shape, data in zip(self.case["buffers"], shapes, self.data, strict=True)
        ]

    def own(self, tensors, nests=False):
        launches = self.case["runs"][0]["launches"]
        parts = zip(self.kernels, launches, self.derived, self.case["kernels"], strict=True)
        for kernel, launch, operands, entry in parts:
            if entry["nest"] != nests:  # those only make operands
                continue
            pointers = [(tensors[b] if isinstance(b, int) else b).data_ptr() for b in operands]
            sizes = (launch["grid"], launch["block"], launch["shared"][0])
            kernel.launch(pointers, launch["params"], *sizes, launch["maps"])

    def peer(self, tensors):
        buffers = self.case["buffers"]
        named = {b["name"]: t for t, b in zip(tensors, buffers, strict=True)}
        names = [b["name"] for b in buffers if b["kind"] == 0 and b["name"] not in self.constants]
        inputs = [named.get(name.removesuffix("0"), named[name]) for name in names]
        return self.run(*inputs, *self.peer_constants)


def bench(side, operations):
    case = side.case
    generator = torch.Generator("cuda").manual_seed(1)
    first = side.make_set(generator)
    size = sum(t.numel() * t.element_size() for t in first)
    sets = [first] + [side.make_set(generator) for _ in range(min(95, max(3, int(200e6 / size))))]
    out = next(i for i, b in enumerate(case["buffers"]) if b["kind"] == 1)
    for tensors in sets:
        side.own(tensors, nests=True)
    side.own(first)
    got, expected = first[out].double(), side.peer(first).double()
    if "conv_" in case["name"]:
        expected = expected.permute(0, 2, 3, 1)
    error = float((got - expected).norm() / expected.norm())
    own = [lambda t=t: side.own(t) for t in sets]
    peer = [lambda t=t: side.peer(t) for t in sets]
    times = measure({"own": own, "peer": peer})
    print(
        f"{case['name']:36} {case.get('tag', ''):14} own {times['own']:8.2f} us  "
        f"torch {times['peer']:8.2f} us  ratio {times['own'] / times['peer']:.2f}  "
        f"{operations / times['own'] / 1e6:7.1f} TFLOP/s  difference {error:.1e}",
        flush=True,
    )


def main(folder, pattern=""):
    torch.backends.cudnn.benchmark = True
    runs = {name: (run, operations) for name, _, _, run, operations in build()}
    for case in json.loads(pathlib.Path(folder, "cases.json").read_text()):
        if pattern in case["name"] and case["name"] in runs:
            run, operations = runs[case["name"]]
            rounds = case["name"].startswith("tf32_")
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounds
            bench(Side(folder, case, run), operations)


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        with open(sys.argv[2], "w") as file:
            for name, graph, sizes, _, _ in build():
                file.write(
                    f"// case {name}\n// at "
                    + " ".join(f"{k}={v}" for k, v in sizes.items())
                    + f"\n{graph}\n"
                )
    else:
        main(*sys.argv[1:])
