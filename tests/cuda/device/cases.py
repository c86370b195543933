# ruff: noqa: E501 (graphs are texts of long lines)
"""Graphs of one contraction each, with what PyTorch computes for them: what check.py runs on a GPU.

`python cases.py FILE` writes them for kiln_cuda_dump.
"""

import sys

CASES = []  # (name, graph, [sizes], reference)
# What begins the name of a case, and a dtype: "tf32_" lets f32 be rounded.
FORMS = (("", "f16"), ("", "bf16"), ("", "f32"), ("", "f64"), ("tf32_", "f32"))


def add(name, graph, sizes, reference):
    CASES.append((name, graph, sizes, reference))


def edges(*sizes):
    return sorted({max(0, size + step) for size in sizes for step in (-1, 0, 1)})


def products():
    """Dynamic m, n and k: a class of tiles for each size to optimise for, and sizes around its edges."""
    import torch.nn.functional as F  # noqa: N812

    classes = {
        "128x128": (4096, 4096, 1024),
        "128x64": (2048, 2304, 512),
        "64x64": (512, 512, 512),
        "128x32": (20000, 32, 256),
        "128x16": (40000, 16, 256),
        "32x64": (32, 3072, 768),
        "16x64": (16, 8192, 2048),
        "16x32": (16, 768, 3072),
        "split": (128, 768, 3072),
        "small": (2, 3, 5),
    }
    some = [
        (0, 5, 8),
        (1, 1, 1),
        (3, 8, 0),
        (5, 9, 7),
        (16, 32, 64),
        (17, 33, 65),
        (63, 65, 127),
        (129, 127, 96),
        (257, 136, 264),
        (128, 128, 32),
        (64, 256, 768),
        (31, 300, 40),
        (300, 31, 33),
        (15, 16, 1000),
        (200, 200, 2049),
        (127, 129, 8),
    ]
    for prefix, dtype in FORMS:
        for name, (m, n, k) in classes.items():
            if (
                not prefix
                and dtype in ("f32", "f64")
                and name not in ("128x128", "64x64", "split", "small")
            ):
                continue
            symbols = f"symbols m in [0, 100000] opt {m}, n in [0, 100000] opt {n}, k in [0, 100000] opt {k}"
            sizes = [{"m": a, "n": b, "k": c} for a, b, c in some]
            add(
                f"{prefix}nt_{dtype}_{name}",
                f"""graph main(%x: {dtype}[m, k], %v: {dtype}[n, k], %b: {dtype}[n], %r: {dtype}[m, n]) {symbols} {{
  %l = linear(%x, %v, %b)
  %y = add(%l, %r)
  return %y as "y"
}}""",
                sizes,
                lambda x, v, b, r: x @ v.T + b + r,
            )
            if name in ("128x128", "64x64", "16x32", "split"):
                add(
                    f"{prefix}nn_{dtype}_{name}",
                    f"""graph main(%x: {dtype}[m, k], %v: {dtype}[k, n]) {symbols} {{
  %y = matmul(%x, %v) {{transpose_b = false}}
  return %y as "y"
}}""",
                    sizes,
                    lambda x, v: x @ v,
                )
                add(
                    f"{prefix}tn_{dtype}_{name}",
                    f"""graph main(%x: {dtype}[2, k, m], %v: {dtype}[2, k, n]) {symbols} {{
  %t = permute(%x) {{axes = [0, 2, 1]}}
  %y = matmul(%t, %v) {{transpose_b = false}}
  return %y as "y"
}}""",
                    sizes,
                    lambda x, v: x.transpose(1, 2) @ v,
                )
    # Operands that are temporaries, which the copy engine of Hopper can bring: its classes of tiles.
    for prefix, dtype in (FORMS[0], FORMS[1], FORMS[4]):
        for m, n, k in (
            (4096, 2304, 768),
            (6304, 768, 768),
            (6304, 3072, 768),
            (4096, 768, 3072),
            (512, 2048, 2048),
            (512, 16384, 256),
            (128, 768, 768),
            (128, 768, 3072),
            (16, 768, 3072),
            (197, 768, 3072),
            (300, 264, 72),
            (40, 100, 136),
            (9000, 520, 1032),
            (70, 4096, 4096),
            (2000, 1000, 64),
            (50000, 256, 64),
            (30000, 520, 200),
            # More than the cache holds: many groups that take turns.
            (99000, 256, 64),
            (99000, 384, 96),
            (99000, 96, 384),
            (25088, 1024, 256),
        ):
            for epilogue in ("res", "gelu"):
                if epilogue == "gelu" and (dtype == "bf16" or k > 1100):
                    continue
                tail = (
                    "%y = add(%l, %r)"
                    if epilogue == "res"
                    else '%g = gelu(%l) {approximate = "none"}\n  %y = add(%g, %r)'
                )
                add(
                    f"{prefix}groups_{epilogue}_{dtype}_{m}_{n}_{k}",
                    f"""graph main(%x0: {dtype}[m, {k}], %v0: {dtype}[{n}, {k}], %b: {dtype}[{n}], %r: {dtype}[m, {n}]) symbols m in [0, 100000] opt {m} {{
  %x = relu(%x0)
  %v = relu(%v0)
  %l = linear(%x, %v, %b)
  {tail}
  return %y as "y"
}}""",
                    [
                        {"m": size}
                        for size in sorted({0, 1, 63, 65, 127, 128, 193, m - 1, m, m + 1})
                    ],
                    (lambda x0, v0, b, r: F.relu(x0) @ F.relu(v0).T + b + r)
                    if epilogue == "res"
                    else (lambda x0, v0, b, r: F.gelu(F.relu(x0) @ F.relu(v0).T + b) + r),
                )
    add(
        "groups_turned_f16",
        """graph main(%x0: f16[m, 128], %v0: f16[96, 128]) symbols m in [1, 5000] opt 2000 {
  %x = relu(%x0)
  %v = relu(%v0)
  %l = linear(%x, %v)
  %p = permute(%l) {axes = [1, 0]}
  %y = tanh(%p)
  return %y as "y"
}""",
        [{"m": 1}, {"m": 300}],
        lambda x0, v0: (F.relu(x0) @ F.relu(v0).T).T.tanh(),
    )
    # Strides that are neither: every second element; broadcast batches; permuted results.
    add(
        "strided_f16",
        """graph main(%x: f16[m, 130], %v: f16[77, 130]) symbols m in [0, 1000] opt 100 {
  %a = slice(%x) {axis = 1, start = 0, size = 65, step = 2}
  %b = slice(%v) {axis = 1, start = 1, size = 65, step = 2}
  %y = linear(%a, %b)
  return %y as "y"
}""",
        [{"m": m} for m in (1, 64, 100)],
        lambda x, v: x[:, 0:130:2] @ v[:, 1:130:2].T,
    )
    add(
        "broadcast_f16",
        """graph main(%x: f16[b, 5, m, 72], %v: f16[1, 5, 72, 40]) symbols b in [1, 9] opt 3, m in [0, 1000] opt 100 {
  %y = matmul(%x, %v) {transpose_b = false}
  return %y as "y"
}""",
        [{"b": b, "m": m} for b in (1, 3) for m in (1, 65)],
        lambda x, v: x @ v,
    )
    add(
        "permuted_bf16",
        """graph main(%x: bf16[s, 40, 80], %v: bf16[s, 80, 24]) symbols s in [1, 80] opt 2 {
  %l = matmul(%x, %v) {transpose_b = false}
  %p = permute(%l) {axes = [1, 0, 2]}
  %y = relu(%p)
  return %y as "y"
}""",
        [{"s": s} for s in (1, 5)],
        lambda x, v: F.relu(x @ v).transpose(0, 1),
    )
    add(
        "columns_first_f16",
        """graph main(%x: f16[s, 40, 80], %v: f16[s, 80, 24]) symbols s in [1, 80] opt 2 {
  %l = matmul(%x, %v) {transpose_b = false}
  %p = permute(%l) {axes = [0, 2, 1]}
  %y = relu(%p)
  return %y as "y"
}""",
        [{"s": s} for s in (1, 5)],
        lambda x, v: F.relu(x @ v).transpose(1, 2),
    )
    for prefix, dtype in FORMS:
        for k, n in ((768, 2304), (33, 70), (40, 100), (7, 3)):
            add(
                f"{prefix}constant_{dtype}_{k}_{n}",
                f"""graph main(%x: {dtype}[m, 5, {k}], %r: {dtype}[m, 5, {n}], %w: {dtype}[{n}, {k}], %w2: {dtype}[{n}]) symbols m in [0, 1000] opt 100 {{
  %l = linear(%x, %w, %w2)
  %g = gelu(%l) {{approximate = "none"}}
  %y = add(%g, %r)
  return %y as "y"
}}""",
                [{"m": m} for m in (1, 13, 51)],
                lambda x, r, w, w2: F.gelu(x @ w.T + w2) + r,
            )
            add(
                f"{prefix}constant_nn_{dtype}_{k}_{n}",
                f"""graph main(%x: {dtype}[m, {k}], %w: {dtype}[{k}, {n}]) symbols m in [0, 1000] opt 100 {{
  %y = matmul(%x, %w) {{transpose_b = false}}
  return %y as "y"
}}""",
                [{"m": m} for m in (1, 13, 51)],
                lambda x, w: x @ w,
            )
            add(
                f"{prefix}row_{dtype}_{k}_{n}",
                f"""graph main(%x: {dtype}[1, {k}], %w: {dtype}[{n}, {k}], %w2: {dtype}[{n}]) {{
  %y = linear(%x, %w, %w2)
  return %y as "y"
}}""",
                [{}],
                lambda x, w, w2: x @ w.T + w2,
            )
            add(
                f"{prefix}row_nn_{dtype}_{k}_{n}",
                f"""graph main(%x: {dtype}[b, 1, {k}], %v: {dtype}[b, {n}, {k}]) symbols b in [1, 50] opt 4 {{
  %y = matmul(%x, %v) {{transpose_b = true}}
  return %y as "y"
}}""",
                [{"b": 1}, {"b": 7}],
                lambda x, v: x @ v.transpose(1, 2),
            )


def float8_layer(m, n, k, dtype, tail="", out=""):
    """A linear layer of numbers of f8e4m3 with scales, of rows and of columns; dims as text."""
    return f"""%x0: f32[{m}, {k}], %s: f32[{m}, 1], %v0: f32[{n}, {k}], %t: f32[{n}, 1], %b: {dtype}[{n}], %r: {dtype}[{m}, {n}]SYMBOLS {{
  %x = cast(%x0) {{dtype = f8e4m3}}
  %c = cast(%x) {{dtype = f32}}
  %a = mul(%c, %s)
  %v = cast(%v0) {{dtype = f8e4m3}}
  %d = cast(%v) {{dtype = f32}}
  %e = mul(%d, %t)
  %l0 = linear(%a, %e)
  %l = cast(%l0) {{dtype = {dtype}}}
  %p = add(%l, %b)
  %y0 = add(%p, %r)
  %y = cast(%y0) {{dtype = {out or dtype}}}
  return %y as "y"
}}"""


def bytes_and_codes():
    """Products of f8e4m3 and of integers, as products() has those of floats."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    def codes(x):
        return x.to(torch.float8_e4m3fn).double()

    def float8(x0, s, v0, t, b, r):
        return (codes(x0) * s) @ (codes(v0) * t).T + b + r

    classes = {"128x128": (4096, 4096, 1024), "64x64": (512, 512, 512), "16x32": (16, 768, 3072)}
    classes |= {"split": (128, 768, 3072), "small": (2, 3, 5), "32x64": (32, 3072, 768)}
    some = [(0, 5, 8), (1, 1, 1), (3, 8, 0), (5, 9, 7), (17, 33, 65), (63, 65, 127), (129, 127, 96)]
    some += [(257, 136, 264), (64, 256, 768), (300, 31, 33), (15, 16, 1000), (200, 200, 2049)]
    for out in ("f16", "bf16", "f32"):
        for name, (m, n, k) in classes.items():
            symbols = f") symbols m in [0, 100000] opt {m}, n in [0, 100000] opt {n}, k in [0, 100000] opt {k}"
            add(
                f"{'f8exact' if out == 'f32' else 'f8'}_nt_{out}_{name}",
                "graph main(" + float8_layer("m", "n", "k", out).replace("SYMBOLS", symbols),
                [{"m": a, "n": b, "k": c} for a, b, c in some],
                float8,
            )
    for m, n, k in (
        (4096, 2304, 768),
        (512, 2048, 2048),
        (512, 2048, 8192),
        (128, 768, 3072),
        (197, 768, 3072),
        (300, 264, 80),
        (40, 112, 144),
        (9000, 528, 1040),
        (70, 4096, 4096),
        (2000, 1000, 128),
        (50000, 256, 64),
        (30000, 520, 208),
    ):
        symbols = f") symbols m in [0, 100000] opt {m}"
        sizes = [{"m": size} for size in sorted({0, 1, 63, 65, 128, 193, m - 1, m, m + 1})]
        for out in ("f16", "f32", "f8e4m3"):
            dtype = "f32" if out == "f32" else "f16"
            if out != "f16" and n > 2000:
                continue
            add(
                f"{'f8exact' if out == 'f32' else 'f8'}_groups_{out}_{m}_{n}_{k}",
                "graph main(" + float8_layer("m", n, k, dtype, out=out).replace("SYMBOLS", symbols),
                sizes,
                float8,
            )
        for out in ("f32", "f16", "bf16"):
            # Results of 16 bits are finished as pairs; they stay below what f16 holds.
            add(
                f"i8_groups_{out}_{m}_{n}_{k}",
                f"""graph main(%x0: f32[m, {k}], %v0: f32[{n}, {k}], %t: f32[{n}, 1]{symbols} {{
  %s = constant() {{value = f32[] 0.0078125}}
  %z = constant() {{value = i64[] 128}}
  %q = quantize(%x0, %s, %z) {{dtype = u8, quant_min = 0, quant_max = 255}}
  %a = dequantize(%q, %s, %z) {{dtype = f32}}
  %p = quantize(%v0, %s) {{dtype = i8, quant_min = -128, quant_max = 127}}
  %b = dequantize(%p, %t) {{dtype = f32}}
  %l = linear(%a, %b)
  %h = constant() {{value = f32[] 0.03125}}
  %m = mul(%l, %h)
  %y = cast(%m) {{dtype = {out}}}
  return %y as "y"
}}""",
                sizes,
                lambda x0, v0, t: ((x0 * 128).round() + 128).clamp(0, 255).sub(128).div(128)
                @ ((v0 * 128).round().clamp(-128, 127) * t).T
                / 32,
            )
    for name, (m, n, k) in classes.items():
        for transposed in ("true", "false"):
            v = "n, k" if transposed == "true" else "k, n"
            add(
                f"i8_{'nt' if transposed == 'true' else 'nn'}_{name}",
                f"""graph main(%x: u8[m, k], %v: i8[{v}]) symbols m in [0, 100000] opt {m}, n in [0, 100000] opt {n}, k in [0, 30000] opt {k} {{
  %a = cast(%x) {{dtype = f32}}
  %b = cast(%v) {{dtype = f32}}
  %y = matmul(%a, %b) {{transpose_b = {transposed}}}
  return %y as "y"
}}""",
                [{"m": a, "n": b, "k": c} for a, b, c in some],
                (lambda x, v: x.double() @ v.double().T)
                if transposed == "true"
                else (lambda x, v: x.double() @ v.double()),
            )
    for n, k in ((2304, 768), (130, 8192), (70, 33), (100, 40), (3, 7), (9000, 64), (700, 2048)):
        for dtype in ("f16", "bf16", "f32"):
            add(
                f"f8row_{dtype}_{n}_{k}",
                f"""graph main(%x: {dtype}[1, {k}], %w: f8e4m3[{n}, {k}], %w2: f32[{n}, 1]) {{
  %d = cast(%w) {{dtype = f32}}
  %e = mul(%d, %w2)
  %b = cast(%e) {{dtype = {dtype}}}
  %y = linear(%x, %b)
  return %y as "y"
}}""",
                [{}],
                lambda x, w, w2: x @ (w * w2).T,
            )
        add(
            f"f8rows_{n}_{k}",
            "graph main(" + float8_layer(1, n, k, "f32").replace("SYMBOLS", ")"),
            [{}],
            float8,
        )
        add(
            f"i8row_{n}_{k}",
            f"""graph main(%x: u8[1, {k}], %v: i8[{n}, {k}]) {{
  %a = cast(%x) {{dtype = f32}}
  %b = cast(%v) {{dtype = f32}}
  %y = linear(%a, %b)
  return %y as "y"
}}""",
            [{}],
            lambda x, v: x.double() @ v.double().T,
        )
    for out in ("f16", "bf16"):
        add(
            f"f8_gated_{out}",
            f"""graph main(%x0: {out}[m, 768], %w: f8e4m3[512, 768], %w2: f8e4m3[512, 768], %s: f32[]) symbols m in [0, 100000] opt 512 {{
  %x = cast(%x0) {{dtype = f8e4m3}}
  %a = cast(%x) {{dtype = {out}}}
  %b = cast(%w) {{dtype = {out}}}
  %c = cast(%w2) {{dtype = {out}}}
  %g = linear(%a, %b)
  %h = silu(%g)
  %u = linear(%a, %c)
  %y = mul(%h, %u)
  return %y as "y"
}}""",
            [{"m": m} for m in (1, 64, 200, 512)],
            lambda x0, w, w2, s: F.silu(codes(x0) @ w.T) * (codes(x0) @ w2.T),
        )


def convolutions():
    import torch.nn.functional as F  # noqa: N812

    def reference(stride, padding, dilation, groups, residual, placed):
        def run(x, w, w2, r=None):
            (top, bottom), (left, right) = padding
            x = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
            y = F.conv2d(x, w.permute(0, 3, 1, 2), w2, stride, 0, dilation, groups).permute(
                0, 2, 3, 1
            )
            return F.relu(y + r) if residual else y

        def behind(x0, w, w2, r=None):
            return run(F.relu(x0), w, w2, r)

        return behind if placed else run

    def one(
        name,
        dtype,
        c,
        o,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        height,
        width,
        residual=False,
        opt=2,
        placed=False,
        batches=(0, 1, 3),
        prefix="",
    ):
        (kh, kw), (top, bottom), (left, right) = kernel, *padding
        oh = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
        ow = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
        r = f", %r: {dtype}[n, {oh}, {ow}, {o}]" if residual else ""
        tail = (
            '%y = add(%c, %r)\n  %z = relu(%y)\n  return %z as "z"'
            if residual
            else 'return %c as "c"'
        )
        argument, first = ("%x0", "  %x = relu(%x0)\n") if placed else ("%x", "")
        add(
            f"{prefix}conv_{name}_{dtype}",
            f"""graph main({argument}: {dtype}[n, {height}, {width}, {c}]{r}, %w: {dtype}[{o}, {kh}, {kw}, {c // groups}], %w2: {dtype}[{o}]) symbols n in [0, 300] opt {opt} {{
{first}  %c = convolution(%x, %w, %w2) {{stride = [{stride[0]}, {stride[1]}], padding_before = [{top}, {left}], padding_after = [{bottom}, {right}], dilation = [{dilation[0]}, {dilation[1]}], groups = {groups}, layout = "nhwc"}}
  {tail}
}}""",
            [{"n": n} for n in batches],
            reference(stride, padding, dilation, groups, residual, placed),
        )

    same = ((1, 1), (1, 1))
    for prefix, dtype in FORMS:
        one(
            "3x3",
            dtype,
            64,
            64,
            (3, 3),
            (1, 1),
            same,
            (1, 1),
            1,
            17,
            14,
            residual=True,
            prefix=prefix,
        )
        one("strided", dtype, 32, 72, (3, 3), (2, 2), same, (1, 1), 1, 15, 18, prefix=prefix)
        one(
            "stem", dtype, 3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1, 31, 29, prefix=prefix
        )
        one(
            "dilated",
            dtype,
            16,
            24,
            (3, 3),
            (1, 1),
            ((2, 2), (2, 2)),
            (2, 2),
            1,
            13,
            12,
            residual=True,
            prefix=prefix,
        )
        one(
            "grouped",
            dtype,
            48,
            32,
            (3, 3),
            (1, 2),
            ((1, 0), (1, 0)),
            (1, 1),
            4,
            9,
            8,
            residual=True,
            prefix=prefix,
        )
        one(
            "grouped_odd",
            dtype,
            20,
            12,
            (3, 3),
            (1, 1),
            same,
            (1, 1),
            4,
            9,
            8,
            residual=True,
            prefix=prefix,
        )
        one(
            "patch",
            dtype,
            3,
            24,
            (4, 4),
            (4, 4),
            ((0, 0), (0, 0)),
            (1, 1),
            1,
            16,
            16,
            prefix=prefix,
        )
        one(
            "1x1_strided",
            dtype,
            40,
            130,
            (1, 1),
            (2, 2),
            ((0, 0), (0, 0)),
            (1, 1),
            1,
            9,
            11,
            prefix=prefix,
        )
        one(
            "wide", dtype, 128, 256, (3, 3), (1, 1), same, (1, 1), 1, 14, 14, opt=128, prefix=prefix
        )
        one("deep", dtype, 512, 128, (3, 3), (1, 1), same, (1, 1), 1, 7, 7, opt=1, prefix=prefix)
    # Inputs that are temporaries, which the copy engine of Hopper can bring: its classes of tiles, with
    # 64 or 32 channels a step, all of them or the last partly behind the last channel.
    for prefix, dtype in (FORMS[0], FORMS[1], FORMS[4]):

        def placed(name, c, o, kernel, size, dtype=dtype, prefix=prefix, **kwargs):
            stride, padding = kwargs.pop("stride", 1), kwargs.pop("padding", kernel // 2)
            dilation, width = kwargs.pop("dilation", 1), kwargs.pop("width", size)
            pads = padding if isinstance(padding, tuple) else ((padding, padding),) * 2
            kwargs = {"residual": True, "placed": True, "batches": (0, 1, 2, 5), **kwargs}
            kwargs["prefix"] = prefix
            one(
                f"placed_{name}",
                dtype,
                c,
                o,
                (kernel, kernel),
                (stride, stride),
                pads,
                (dilation, dilation),
                1,
                size,
                width,
                **kwargs,
            )

        for opt in (1, 32):
            for size, c in ((56, 64), (28, 128), (14, 256), (7, 512)):
                placed(f"{size}_b{opt}", c, c, 3, size, opt=opt)
                placed(f"{size}_halved_b{opt}", c, 2 * c, 3, size, opt=opt, stride=2)
                placed(f"{size}_corners_b{opt}", c, 2 * c, 1, size, opt=opt, stride=2)
        placed("odd", 64, 72, 3, 15, width=18, opt=7)
        placed("one_row", 64, 64, 3, 1, width=300, opt=7)
        placed("dilated", 128, 136, 3, 13, width=21, padding=2, dilation=2, opt=7)
        placed("uneven", 64, 130, 4, 9, width=14, padding=((1, 2), (3, 0)), stride=3, opt=9)
        placed("large", 64, 40, 7, 20, width=11, opt=9)
        placed("unpadded", 64, 64, 3, 9, padding=0, opt=9)
        for c in (16, 24, 32, 40, 56, 72, 96, 80, 104, 160, 320):
            placed(f"channels_{c}", c, 48, 3, 11, width=13, opt=8)
            placed(f"channels_{c}_deep", c, 96, 3, 11, width=13, opt=1, stride=2)
        add(
            f"{prefix}conv_placed_dynamic_{dtype}",
            f"""graph main(%x0: {dtype}[n, h, v, 64], %w: {dtype}[56, 3, 3, 64], %w2: {dtype}[56]) symbols n in [1, 4] opt 2, h in [3, 3000] opt 30, v in [3, 3000] opt 20 {{
  %x = relu(%x0)
  %c = convolution(%x, %w, %w2) {{stride = [1, 1], padding_before = [1, 1], padding_after = [1, 1], dilation = [1, 1], groups = 1, layout = "nhwc"}}
  %y = mul(%c, %c)
  return %y as "y"
}}""",
            [{"n": 1, "h": 3, "v": 5}, {"n": 2, "h": 30, "v": 21}],
            lambda x0, w, w2: F.conv2d(
                F.relu(x0).permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), w2, 1, 1
            ).permute(0, 2, 3, 1)
            ** 2,
        )
        add(
            f"{prefix}conv_placed_1d_{dtype}",
            f"""graph main(%x0: {dtype}[n, t, 80], %w: {dtype}[384, 3, 80], %w2: {dtype}[384]) symbols n in [1, 4] opt 2, t in [3, 3000] opt 3000 {{
  %x = relu(%x0)
  %y = convolution(%x, %w, %w2) {{stride = [1], padding_before = [1], padding_after = [1], dilation = [1], groups = 1, layout = "nhwc"}}
  return %y as "y"
}}""",
            [{"n": 1, "t": 3}, {"n": 2, "t": 3000}],
            lambda x0, w, w2: F.conv1d(
                F.relu(x0).transpose(1, 2), w.permute(0, 2, 1), w2, 1, 1
            ).transpose(1, 2),
        )
    # Few channels: windows of 4 or 8 channels a pixel, rows of filters that end within a chunk or with one.
    for dtype in ("f16", "bf16"):
        for c, o, kernel, stride, pads, opt in (
            (3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)), 1),
            (3, 64, (7, 7), (2, 2), ((3, 3), (3, 3)), 200),
            (3, 32, (3, 3), (2, 2), ((1, 1), (1, 1)), 200),
            (3, 24, (3, 3), (1, 1), ((1, 1), (1, 1)), 9),
            (1, 70, (5, 5), (1, 1), ((2, 2), (2, 2)), 9),
            (4, 130, (3, 3), (1, 1), ((1, 1), (1, 1)), 9),
            (3, 96, (4, 4), (4, 4), ((0, 0), (0, 0)), 9),
            (2, 40, (5, 6), (3, 2), ((0, 2), (3, 1)), 9),
            (7, 64, (3, 2), (2, 3), ((1, 0), (1, 1)), 200),
        ):
            name = f"window_{c}_{o}_{kernel[0]}x{kernel[1]}_{opt}"
            shape = (c, o, kernel, stride, pads, (1, 1), 1, 45, 38)
            one(name, dtype, *shape, residual=c != 3, opt=opt, batches=(0, 1, 2, 5))
    add(
        "conv_1d_f16",
        """graph main(%x: f16[n, t, 40], %w: f16[56, 3, 40], %w2: f16[56]) symbols n in [1, 4] opt 2, t in [3, 3000] opt 100 {
  %y = convolution(%x, %w, %w2) {stride = [2], padding_before = [1], padding_after = [1], dilation = [1], groups = 1, layout = "nhwc"}
  return %y as "y"
}""",
        [{"n": 1, "t": 3}, {"n": 2, "t": 100}],
        lambda x, w, w2: F.conv1d(x.transpose(1, 2), w.permute(0, 2, 1), w2, 2, 1).transpose(1, 2),
    )
    add(
        "conv_dynamic_f16",
        """graph main(%x: f16[n, h, v, 40], %w: f16[56, 3, 3, 40], %w2: f16[56]) symbols n in [1, 4] opt 2, h in [3, 3000] opt 30, v in [3, 3000] opt 20 {
  %c = convolution(%x, %w, %w2) {stride = [2, 1], padding_before = [1, 1], padding_after = [1, 1], dilation = [1, 1], groups = 1, layout = "nhwc"}
  %y = mul(%c, %c)
  return %y as "y"
}""",
        [{"n": 1, "h": 3, "v": 5}, {"n": 2, "h": 30, "v": 21}],
        lambda x, w, w2: F.conv2d(
            x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), w2, (2, 1), 1
        ).permute(0, 2, 3, 1)
        ** 2,
    )


def projected():
    """Residual blocks with a projection: two sums of a convolution, in turns (on Hopper)."""
    import torch.nn.functional as F  # noqa: N812

    def conv(x, w, b, stride, padding):
        return F.conv2d(x, w.permute(0, 3, 1, 2), b, stride, padding)

    def reference(taps, stride):
        def run(x0, z0, w, w2, w3, w4):
            x, z = F.relu(x0).permute(0, 3, 1, 2), F.relu(z0).permute(0, 3, 1, 2)
            y = conv(z, w, w2, 1, taps // 2) + conv(x, w3, w4, stride, 0)
            return F.relu(y).permute(0, 2, 3, 1)

        return run

    for dtype in ("f16", "bf16"):
        for name, size, c, d, o, taps, stride, opt in (
            ("streams", 56, 64, 64, 256, 1, 1, 32),
            ("strided", 28, 256, 128, 512, 1, 2, 32),
            ("deep", 7, 1024, 512, 2048, 1, 2, 32),
            ("basic", 28, 64, 128, 128, 3, 2, 32),
            ("one", 7, 1024, 512, 2048, 1, 2, 1),
            ("first", 56, 64, 64, 256, 1, 1, 1),
            ("odd", 9, 40, 24, 88, 3, 2, 4),
            ("narrow", 14, 16, 8, 16, 1, 1, 4),
        ):
            wide = size * stride - (stride > 1)
            add(
                f"projected_{name}_{dtype}",
                f"""graph main(%x0: {dtype}[n, {wide}, {wide}, {c}], %z0: {dtype}[n, {size}, {size}, {d}], %w: {dtype}[{o}, {taps}, {taps}, {d}], %w2: {dtype}[{o}], %w3: {dtype}[{o}, 1, 1, {c}], %w4: {dtype}[{o}]) symbols n in [0, 300] opt {opt} {{
  %x = relu(%x0)
  %z = relu(%z0)
  %e = convolution(%x, %w3, %w4) {{stride = [{stride}, {stride}], padding_before = [0, 0], padding_after = [0, 0], dilation = [1, 1], groups = 1, layout = "nhwc"}}
  %c = convolution(%z, %w, %w2) {{stride = [1, 1], padding_before = [{taps // 2}, {taps // 2}], padding_after = [{taps // 2}, {taps // 2}], dilation = [1, 1], groups = 1, layout = "nhwc"}}
  %s = add(%c, %e)
  %y = relu(%s)
  return %y as "y"
}}""",
                [{"n": n} for n in sorted({0, 1, 2, 5, opt})],
                reference(taps, stride),
            )


def attentions():
    import torch

    def reference(scale, causal, kind=None, nan=False):
        def run(q, k, v, mask=None):
            group = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            score = q @ k.transpose(2, 3) * scale
            if kind == "bias":
                score = score + mask
            keep = torch.ones(score.shape, dtype=torch.bool, device=q.device)
            if kind == "bool":
                keep = keep & mask
            if causal:
                keep = keep & torch.ones(score.shape[2:], dtype=torch.bool, device=q.device).tril()
            score = score.masked_fill(~keep, float("-inf"))
            y = torch.softmax(score, -1)
            if nan and score.shape[-1] == 0:
                return torch.full(
                    (*score.shape[:-1], v.shape[-1]), float("nan"), dtype=v.dtype, device=v.device
                )
            if not nan:
                y = y.masked_fill(~keep.any(-1, keepdim=True), 0)
            return y @ v

        return run

    def one(name, dtype, h, g, d, e, opt, sizes, causal=False, mask=None, nan=False, shape=None):
        kind = None if mask is None else "bool" if mask == "bool" else "bias"
        operand = "" if mask is None else f", %m: {mask}{shape}"
        use = "" if mask is None else ", %m"
        rows = ", nan_rows = true" if nan else ""
        add(
            f"attention_{name}_{dtype}",
            f"""graph main(%q: {dtype}[b, {h * g}, s, {d}], %k: {dtype}[b, {h}, t, {d}], %v: {dtype}[b, {h}, t, {e}]{operand}) symbols b in [0, 40] opt {opt[0]}, s in [0, 5000] opt {opt[1]}, t in [0, 5000] opt {opt[2]} {{
  %y = attention(%q, %k, %v{use}) {{scale = 0.2, causal = {str(causal).lower()}{rows}}}
  return %y as "y"
}}""",
            [{"b": b, "s": s, "t": t} for b, s, t in sizes],
            reference(0.2, causal, kind, nan),
        )

    # The cuts for Hopper, by the sizes to optimise for; the last size makes several items a block.
    def grouped(dtype):
        edges = [
            (1, 1, 1),
            (2, 63, 65),
            (1, 64, 64),
            (1, 65, 63),
            (2, 127, 129),
            (1, 128, 128),
            (1, 129, 127),
            (3, 197, 197),
            (1, 200, 1000),
            (1, 512, 512),
            (1, 1000, 200),
            (2, 300, 1),
            (1, 1, 300),
            (2, 130, 0),
            (40, 130, 70),
        ]
        cuts = {
            "short": (1, 128, 128),
            "rows": (40, 197, 197),
            "medium": (20, 512, 512),
            "uneven": (2, 1500, 1500),
            "long": (2, 2048, 2048),
        }
        for name, opt in cuts.items():
            for d, e in ((64, 64), (128, 128), (48, 32), (80, 96), (256, 192)):
                for causal in (False, True):
                    tag = f"{name}_{d}_{e}" + ("_causal" if causal else "")
                    one(tag, dtype, 2, 3, d, e, opt, edges, causal=causal)
            for d in (64, 128):
                keep = {"mask": "bool", "shape": "[b, 1, 1, t]"}
                one(f"{name}_{d}_keys", dtype, 2, 3, d, d, opt, edges, **keep)
                bias = {"mask": dtype, "shape": "[6, s, t]", "causal": True}
                one(f"{name}_{d}_bias", dtype, 2, 3, d, d, opt, edges, **bias)

    square = [
        (1, 1, 1),
        (2, 15, 17),
        (1, 63, 64),
        (2, 64, 65),
        (1, 65, 63),
        (1, 129, 200),
        (0, 4, 4),
        (1, 5, 0),
        (2, 197, 197),
    ]
    few = [(1, 1, 1), (2, 1, 15), (1, 1, 33), (3, 1, 512), (1, 4, 700), (1, 7, 129)]
    for dtype in ("f16", "bf16", "f32"):
        for d, e in ((64, 64), (128, 128), (8, 24), (20, 24), (80, 80), (256, 256), (40, 128)):
            one(f"plain_{d}_{e}", dtype, 3, 1, d, e, (4, 197, 197), square)
        one("causal", dtype, 2, 4, 64, 64, (4, 197, 197), square, causal=True)
        one("masked", dtype, 3, 1, 64, 64, (4, 197, 197), square, mask="bool", shape="[b, 1, 1, t]")
        one(
            "masked_rows",
            dtype,
            2,
            2,
            64,
            64,
            (4, 197, 197),
            square,
            mask="bool",
            shape="[b, 4, s, t]",
        )
        one(
            "masked_nan",
            dtype,
            2,
            2,
            64,
            64,
            (4, 197, 197),
            square,
            mask="bool",
            nan=True,
            shape="[b, 4, s, t]",
        )
        one("biased", dtype, 3, 1, 64, 64, (4, 197, 197), square, mask=dtype, shape="[3, s, t]")
        one(
            "causal_biased",
            dtype,
            3,
            1,
            32,
            32,
            (4, 197, 197),
            square,
            mask=dtype,
            causal=True,
            shape="[3, s, t]",
        )
        # Enough of them that a warp takes two tiles.
        many = {"opt": (40, 197, 197), "sizes": square}
        one("many", dtype, 4, 2, 128, 80, **many)
        one("many_causal", dtype, 4, 2, 96, 128, causal=True, **many)
        one("many_masked", dtype, 8, 1, 128, 128, mask="bool", shape="[b, 1, s, t]", **many)
        if dtype != "f32":
            grouped(dtype)
        for d in (64, 128, 256):
            one(f"decode_{d}", dtype, 3, 4, d, d, (1, 1, 512), few)
        one(
            "decode_masked",
            dtype,
            3,
            4,
            64,
            64,
            (1, 1, 512),
            few,
            mask="bool",
            shape="[b, 12, s, t]",
        )
        one("decode_causal", dtype, 3, 4, 64, 64, (1, 4, 512), few, causal=True)
        one("decode_single", dtype, 8, 1, 64, 64, (8, 1, 512), few)
    add(
        "attention_packed_f16",
        """graph main(%x: f16[b, s, 3, 4, 64]) symbols b in [1, 40] opt 4, s in [1, 5000] opt 197 {
  %p = permute(%x) {axes = [2, 0, 3, 1, 4]}
  %q0 = slice(%p) {axis = 0, start = 0, size = 1, step = 1}
  %k0 = slice(%p) {axis = 0, start = 1, size = 1, step = 1}
  %v0 = slice(%p) {axis = 0, start = 2, size = 1, step = 1}
  %q = reshape(%q0) {shape = [b, 4, s, 64]}
  %k = reshape(%k0) {shape = [b, 4, s, 64]}
  %v = reshape(%v0) {shape = [b, 4, s, 64]}
  %y = attention(%q, %k, %v) {scale = 0.125, causal = false}
  %z = permute(%y) {axes = [0, 2, 1, 3]}
  return %z as "z"
}""",
        [{"b": 1, "s": 1}, {"b": 2, "s": 197}],
        lambda x: torch.nn.functional.scaled_dot_product_attention(
            *x.permute(2, 0, 3, 1, 4), scale=0.125
        ).transpose(1, 2),
    )


def write(path):
    with open(path, "w") as file:
        for name, graph, sizes, _ in CASES:
            file.write(f"// case {name}\n")
            for at in sizes:
                file.write(
                    "// at " + " ".join(f"{key}={value}" for key, value in at.items()) + "\n"
                )
            file.write(graph + "\n")


def build():
    products()
    bytes_and_codes()
    convolutions()
    projected()
    attentions()
    return CASES


if __name__ == "__main__":
    build()
    write(sys.argv[1])
