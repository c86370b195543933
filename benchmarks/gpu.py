"""Models in f16, or as TF32, on a GPU, beside eager PyTorch, CUDA graphs of it, and torch.compile:
`benchmarks/gpu.py [MODEL...]`.

All run in one process and take turns; times are medians of CUDA events around one call, in milliseconds. Weights are
random. Needs torch with CUDA, transformers and timm. `--kernels` lists what the time of each model is made of; `--tune`
adds an engine that was tuned, and how long it took to compile without and with a timing cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import torch_tensorrt
from gpu_models import LlamaDecode, UNet
from torch_tensorrt.runtime._modes import engines_of

_ROUNDS, _CALLS = 3, 30


def bert(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    from transformers import BertConfig, BertModel

    ids = torch.randint(0, 1000, (batch, 128), device="cuda")
    return BertModel(BertConfig(), add_pooling_layer=False), ids


def vit(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    from transformers import ViTConfig, ViTModel

    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.half)
    return ViTModel(ViTConfig(), add_pooling_layer=False), x


def resnet50(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    import timm

    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.half)
    model = timm.create_model("resnet50").to(memory_format=torch.channels_last)
    return model, x.to(memory_format=torch.channels_last)


def llama_of(layers: int, vocabulary: int) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=vocabulary,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def llama(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """Four layers of a model with 1.2 billion parameters, and a head of 32000 words."""
    return llama_of(4, 32000), torch.randint(0, 1000, (batch, 512), device="cuda")


def llama_prefill(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The whole model, 1.2 billion parameters in its layers and as many words as the model has; all logits."""
    return llama_of(16, 128256), torch.randint(0, 1000, (batch, 512), device="cuda")


def llama_decode(batch: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The same, one token after 400 others in a cache of 512 that is changed in place."""
    token = torch.randint(0, 1000, (batch, 1), device="cuda")
    return LlamaDecode(batch, 16, 128256, 512), (token, torch.tensor([400], device="cuda"))


def convnext(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    import timm

    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.half)
    return timm.create_model("convnext_tiny"), x


def swin(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    import timm

    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.half)
    return timm.create_model("swin_tiny_patch4_window7_224"), x


def whisper(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The encoder of Whisper-small, thirty seconds of sound."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=768, encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072
    )
    return WhisperEncoder(config), torch.randn(batch, 80, 3000, device="cuda", dtype=torch.half)


def unet(batch: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The denoiser of Stable Diffusion 1.5, for pictures of 512 x 512."""
    x = torch.randn(batch, 4, 64, 64, device="cuda", dtype=torch.half)
    text = torch.randn(batch, 77, 768, device="cuda", dtype=torch.half)
    return UNet(), (x, torch.full((batch,), 500.0, device="cuda", dtype=torch.half), text)


CASES = {
    "resnet50 b1": (resnet50, 1),
    "resnet50 b32": (resnet50, 32),
    "resnet50 b128": (resnet50, 128),
    "bert b1": (bert, 1),
    "bert b32": (bert, 32),
    "vit b1": (vit, 1),
    "vit b32": (vit, 32),
    "llama 512": (llama, 1),
    "llama 1.2b prefill": (llama_prefill, 1),
    "llama 1.2b decode": (llama_decode, 1),
    "convnext b32": (convnext, 32),
    "swin b8": (swin, 8),
    "whisper b1": (whisper, 1),
    "unet b2": (unet, 2),
}


Inputs = tuple[torch.Tensor, ...]


def first(result: Any) -> torch.Tensor:
    return result if isinstance(result, torch.Tensor) else result[0]


def milliseconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[_CALLS // 2]


def captured(model: Callable[..., Any], inputs: Inputs) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(*inputs)
    return graph.replay


def tuned(model: torch.nn.Module, inputs: Inputs, level: int) -> Any:
    """A tuned engine; prints the seconds of a compile without and with a timing cache."""
    seconds, engines = [], []
    with tempfile.TemporaryDirectory() as folder:
        options = {"optimization_level": level, "timing_cache_path": os.path.join(folder, "times")}
        for _ in range(2):
            begin = time.perf_counter()
            compiled = torch_tensorrt.compile(
                model, ir="dynamo", inputs=list(inputs), min_block_size=1, **options
            )
            seconds.append(time.perf_counter() - begin)
            engines.append(list(engines_of(compiled).values()))
    same = all(torch.equal(a, b) for a, b in zip(*engines, strict=True))
    print(f"  tuned in {seconds[0]:.1f} s, again in {seconds[1]:.1f} s, same bytes: {same}")
    return compiled


def quantised(model: torch.nn.Module, kind: str) -> None:
    """Its linear layers with weights of float8 by torchao: with one scale, a scale a row, or weights alone."""
    from torchao import quantization as q  # noqa: PLC0415 - the one thing here that needs torchao

    if kind == "weights":
        q.quantize_(model, q.Float8WeightOnlyConfig())
        return
    granularity = q.PerRow() if kind == "rows" else q.PerTensor()
    q.quantize_(model, q.Float8DynamicActivationFloat8WeightConfig(granularity=granularity))


def prepared(name: str, tf32: bool, float8: str = "") -> tuple[torch.nn.Module, Inputs]:
    make, batch = CASES[name]
    torch.manual_seed(0)
    model, made = make(batch)
    dtype = torch.float32 if tf32 else torch.half
    inputs = made if isinstance(made, tuple) else (made,)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    model = model.eval().cuda().to(dtype)
    if float8:
        # torchao's products have results of bf16.
        inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in inputs)
        quantised(model.bfloat16(), float8)
    return model, inputs


def peers(model: torch.nn.Module, inputs: Inputs, most: bool) -> dict[str, Callable[[], Any]]:
    inductor = torch.compile(model)
    inductor(*inputs)
    calls: dict[str, Callable[[], Any]] = {
        "eager": lambda: model(*inputs),
        "graph": captured(model, inputs),
        "inductor": lambda: inductor(*inputs),
        "inductor graph": captured(inductor, inputs),
    }
    if most:
        torch._dynamo.reset()
        best = torch.compile(model, mode="max-autotune-no-cudagraphs")
        best(*inputs)
        calls["max-autotune graph"] = captured(best, inputs)
    return calls


def run_case(name: str, options: argparse.Namespace) -> float:
    model, inputs = prepared(name, options.tf32, options.float8)
    expected = first(model(*inputs)).double()
    begin = time.perf_counter()
    compiled = torch_tensorrt.compile(model, ir="dynamo", inputs=list(inputs), min_block_size=1)
    seconds = time.perf_counter() - begin
    error = (first(compiled(*inputs)).double() - expected).norm() / expected.norm()
    calls = {} if options.alone else peers(model, inputs, options.max_autotune)
    calls["kiln"] = lambda: compiled(*inputs)
    if options.graph:
        calls["kiln graph"] = captured(compiled, inputs)
    if options.tune:
        other = tuned(model, inputs, options.tune)
        calls["kiln tuned"] = lambda: other(*inputs)
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(_ROUNDS):
        for key, call in calls.items():
            times[key].append(milliseconds(call))
    best = {key: min(values) for key, values in times.items()}
    others = [value for key, value in best.items() if not key.startswith("kiln")]
    ratio = best["kiln"] / min(others, default=float("nan"))
    row = "  ".join(f"{key} {value:.3f}" for key, value in best.items())
    print(
        f"{name:18} {row}  ratio {ratio:.2f}  error {error:.1e}  compiled in {seconds:.1f} s  "
        f"engines {len(engines_of(compiled))}",
        flush=True,
    )
    if options.kernels:
        print_kernels(compiled, inputs)
    return ratio


def print_kernels(compiled: Any, inputs: Inputs) -> None:
    """What the kernels of each name take together; events around each of them add about 3 us."""
    with torch_tensorrt.runtime.profiling(compiled) as profile:
        compiled(*inputs)
        engines = profile.kernels().values()
    times: dict[tuple[str, str], list[float]] = {}
    for rows in engines:
        for each in rows:
            key = (each["kind"], each["kernel"])
            times.setdefault(key, []).append(each["nanoseconds"] / 1e3)
    for (kind, kernel), each in sorted(times.items(), key=lambda item: -sum(item[1]))[:40]:
        mean = sum(each) / len(each)
        print(f"  {sum(each):9.1f} us  {len(each):3} x {mean:6.1f}  {kind:12} {kernel}")


def copy_bandwidth() -> float:
    """GB/s of a copy of a gigabyte, read and written."""
    a = torch.empty(1 << 28, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.nbytes / milliseconds(lambda: b.copy_(a)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="beginnings of names; all when empty")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--tune", type=int, default=0, help="an optimization_level of 3 to 5")
    parser.add_argument("--graph", action="store_true", help="adds the engine in a graph of ours")
    parser.add_argument("--alone", action="store_true", help="without PyTorch beside it")
    parser.add_argument("--max-autotune", action="store_true", help="adds Inductor's best mode")
    parser.add_argument(
        "--float8",
        default="",
        choices=["tensor", "rows", "weights"],
        help="linear layers in float8 by torchao, for all",
    )
    parser.add_argument("--tf32", action="store_true", help="f32, rounded to TF32 by all")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    ratios = []
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, a copy {copy_bandwidth():.0f} GB/s"
    )
    with torch.no_grad():
        for name in CASES:
            if not options.models or any(name.startswith(word) for word in options.models):
                ratios.append(run_case(name, options))
    mean = torch.tensor(ratios).log().mean().exp()
    print(f"geometric mean of the ratios to the best peer: {mean:.2f}")


if __name__ == "__main__":
    main()
