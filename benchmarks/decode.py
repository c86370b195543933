#!/usr/bin/env python3
"""Token by token: milliseconds a token of Kiln and its peers, and the share of the read bandwidth they reach.

A prompt of 128 tokens, then 128 tokens one at a time, batch 1, with a cache of 256. Every peer has a process of its
own; they take turns, some tokens each. What one token reads are the weights of all linear layers with their scales, in
the format that is named; read bandwidth is measured beside it by the same number of threads. llama.cpp comes as the
package xllamacpp, with a GGUF file of random weights: Q8_0 and Q4_0, which are groups of 32, and it quantises
activations too.

    python benchmarks/decode.py --models gpt2 --formats f32 int4-32 --peers kiln onnxruntime openvino llama.cpp
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from decode_models import MODELS, Decoder, Sizes, decoder
from report import table

PROMPT, TOKENS = 128, 128
FORMATS = ("f32", "bf16", "int8", "int4-32", "int4-128")
PEERS = ("kiln", "eager", "inductor", "onnxruntime", "openvino", "llama.cpp")


def clock(threads: int) -> Callable[[], float]:
    """One thread is timed by its CPU time, which other work on the machine disturbs less."""
    return time.process_time if threads == 1 else time.perf_counter


def group_of(form: str) -> int:
    return int(form.removeprefix("int4-")) if form.startswith("int4") else 0


def bytes_of(sizes: Sizes, form: str) -> float:
    """Of the weights that a token meets."""
    kept = sizes.shared * sizes.each
    layer = sizes.size * (2 * sizes.size + 2 * kept + (3 if sizes.gated else 2) * sizes.hidden)
    elements = sizes.layers * layer + sizes.size * sizes.vocabulary
    if group := group_of(form):
        return elements * (0.5 + 2 / group)  # scales of 16 bits
    return elements * {"f32": 4, "bf16": 2, "int8": 1}[form]


# --- Peers: a function of tokens and positions, which keeps the caches ---


def torch_model(name: str, form: str) -> Decoder:
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    model = decoder(name)
    if form == "bf16":
        model.bfloat16()
    elif form == "int8":
        quantize_(model, Int8WeightOnlyConfig())
    elif group := group_of(form):
        config = IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=PerGroup(group), scale_dtype=torch.bfloat16
        )
        quantize_(model, config)
    return model


def make_eager(name: str, form: str, folder: Path, threads: int):
    return torch_model(name, form)


def make_inductor(name: str, form: str, folder: Path, threads: int):
    return torch.compile(torch_model(name, form), dynamic=False)


def make_kiln(name: str, form: str, folder: Path, threads: int):
    import torch_tensorrt

    count = torch.export.Dim("count", min=1, max=PROMPT)
    program = torch.export.export(
        torch_model(name, form),
        (torch.zeros(1, 5, dtype=torch.int64), torch.arange(5)),
        dynamic_shapes={"tokens": {1: count}, "positions": {0: count}},
    )
    shapes = {"tokens": ((1, 1), (1, 1), (1, PROMPT)), "positions": ((1,), (1,), (PROMPT,))}
    inputs = [
        torch_tensorrt.Input(min_shape=a, opt_shape=b, max_shape=c, dtype=torch.int64)
        for a, b, c in shapes.values()
    ]
    module = torch_tensorrt.dynamo.compile(
        program, arg_inputs=inputs, require_full_compilation=True, use_python_runtime=False
    )
    print(f"{name} {form}: engine {module.engine_0.numel() / 1e6:.0f} MB", file=sys.stderr)
    return module


class Stateless(nn.Module):
    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, positions: Tensor, caches: list[Tensor]):
        return self.model(tokens, positions, caches)


def empty_caches(sizes: Sizes) -> list[Tensor]:
    return [torch.zeros(1, sizes.shared, sizes.length, sizes.each) for _ in range(2 * sizes.layers)]


def stateless(name: str, repeats: bool = False) -> torch.export.ExportedProgram:
    count = torch.export.Dim("count", min=1, max=PROMPT)
    caches = empty_caches(MODELS[name])
    model = decoder(name)
    for layer in model.layers:
        layer.repeats = repeats
    return torch.export.export(
        Stateless(model),
        (torch.zeros(1, 5, dtype=torch.int64), torch.arange(5), caches),
        dynamic_shapes={
            "tokens": {1: count},
            "positions": {0: count},
            "caches": [None] * len(caches),
        },
    )


def make_onnxruntime(name: str, form: str, folder: Path, threads: int):
    import onnxruntime
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    if form == "bf16":
        raise NotImplementedError("no products of bf16 on CPUs")
    path = folder / "model.onnx"
    torch.onnx.export(stateless(name), dynamo=True, verbose=False).save(
        str(path), external_data=True
    )
    if form != "f32":
        import onnx

        bits, block = (4, group_of(form)) if group_of(form) else (8, 128)
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(path)), bits=bits, block_size=block, is_symmetric=True
        )
        quantizer.process()
        path = folder / "quantised.onnx"
        quantizer.model.save_model_to_file(str(path), use_external_data_format=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    results = [entry.name for entry in session.get_outputs()]
    state = [
        onnxruntime.OrtValue.ortvalue_from_numpy(x.numpy()) for x in empty_caches(MODELS[name])
    ]

    def run(tokens: Tensor, positions: Tensor) -> Tensor:
        binding = session.io_binding()
        for key, value in zip(names[:2], (tokens, positions), strict=True):
            binding.bind_cpu_input(key, value.numpy())
        for key, value in zip(names[2:], state, strict=True):
            binding.bind_ortvalue_input(key, value)
        for key in results:
            binding.bind_output(key)
        session.run_with_iobinding(binding)
        logits, *state[:] = binding.get_outputs()
        return torch.from_numpy(logits.numpy())

    return run


def make_openvino(name: str, form: str, folder: Path, threads: int):
    import openvino
    from openvino._offline_transformations import apply_make_stateful_transformation

    model = openvino.convert_model(stateless(name, True).run_decompositions({}))
    caches = [list(x.shape) for x in empty_caches(MODELS[name])]
    model.reshape(dict(zip(model.inputs, [[1, -1], [-1], *caches], strict=True)))
    pairs = {}
    for i, (given, made) in enumerate(zip(model.inputs[2:], model.outputs[1:], strict=True)):
        given.get_tensor().set_names({f"cache_{i}"})
        made.get_tensor().set_names({f"new_{i}"})
        pairs[f"cache_{i}"] = f"new_{i}"
    apply_make_stateful_transformation(model, pairs)
    if form in ("int8",) or group_of(form):
        import nncf

        mode = nncf.CompressWeightsMode
        extra = {"mode": mode.INT8_ASYM}
        if group := group_of(form):
            extra = {"mode": mode.INT4_SYM, "group_size": group, "ratio": 1.0, "all_layers": True}
        model = nncf.compress_weights(model, **extra)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if form == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(tokens: Tensor, positions: Tensor) -> Tensor:
        request.infer([tokens.numpy(), positions.numpy()])
        return torch.from_numpy(request.get_output_tensor(0).data)

    return run


class LlamaCpp:
    """A server in this process."""

    def __init__(self, path: Path, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 2 * PROMPT
        params.n_parallel = 1
        params.warmup = True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self.server, self.now = xllamacpp.Server(params), clock(threads)

    def timed(self, count: int) -> list[float]:
        """Of all at once; the last token of the prompt is computed again, the others are in its cache."""
        request = {"prompt": [5 + i % 1000 for i in range(PROMPT)], "n_predict": count}
        start = self.now()
        self.server.handle_completions(
            {**request, "temperature": 0, "ignore_eos": True, "cache_prompt": True}, lambda _: None
        )
        return [1e3 * (self.now() - start) / (count + 1)]


def make_llama_cpp(name: str, form: str, folder: Path, threads: int) -> LlamaCpp:
    from decode_gguf import write

    if form == "int4-128":
        raise NotImplementedError("no groups of 128")
    path = folder / "model.gguf"
    write(decoder(name), form, path)
    return LlamaCpp(path, threads)


MAKERS = {
    "kiln": make_kiln,
    "eager": make_eager,
    "inductor": make_inductor,
    "onnxruntime": make_onnxruntime,
    "openvino": make_openvino,
    "llama.cpp": make_llama_cpp,
}


# --- Processes ---


def work(peer: str, name: str, form: str, threads: int) -> None:
    """Says when it is ready, and then for each count of tokens on a line how long each took, in ms."""
    torch.set_num_threads(threads)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        try:
            run = MAKERS[peer](name, form, Path(folder), threads)
            if isinstance(run, LlamaCpp):
                run.timed(1)
                print(json.dumps({"ready": True}), flush=True)
                for line in sys.stdin:
                    print(json.dumps({"ms": run.timed(int(line))}), flush=True)
                return
            tokens = torch.arange(PROMPT)[None] % 1000
            first = run(tokens, torch.arange(PROMPT)).float().clone()
        except (ImportError, NotImplementedError) as reason:
            print(json.dumps({"missing": str(reason)}), flush=True)
            return
        print(json.dumps({"norm": float(first.norm()), "best": int(first.argmax())}), flush=True)
        place, now = 0, clock(threads)
        for line in sys.stdin:
            times = []
            for _ in range(int(line)):
                token, position = torch.tensor([[place % 1000]]), torch.tensor([PROMPT + place])
                start = now()
                run(token, position)
                times.append(1e3 * (now() - start))
                place = (place + 1) % TOKENS
            print(json.dumps({"ms": times}), flush=True)


class Worker:
    def __init__(self, peer: str, name: str, form: str, threads: int) -> None:
        command = [sys.executable, __file__, "--work", peer, name, form, str(threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return {"missing": "the process ended"}

    def ask(self, count: int) -> list[float]:
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def read_bandwidth(threads: int) -> float:
    """Bytes a second of a sum over 512 MiB, the best of some."""
    torch.set_num_threads(threads)
    x = torch.ones(1 << 27)
    best, now = 0.0, clock(threads)
    for _ in range(6):
        start = now()
        x.sum()
        best = max(best, 4 * x.numel() / (now() - start))
    return best


def measure(name: str, form: str, peers: list[str], threads: int, rounds: int) -> list[list[str]]:
    workers, times, rates = {}, {}, []
    for peer in peers:  # one after another: building takes memory
        worker = Worker(peer, name, form, threads)
        answer = worker.answer()
        print(f"{name} {form} {peer}: {answer}", file=sys.stderr, flush=True)
        if "missing" not in answer:
            workers[peer], times[peer] = worker, []
    for _ in range(rounds):
        rates.append(read_bandwidth(threads))
        for peer, worker in workers.items():
            times[peer] += worker.ask(TOKENS // rounds)
    rate, read = max(rates), bytes_of(MODELS[name], form)
    rows = []
    for peer, worker in workers.items():
        worker.close()
        ms = median(times[peer])
        share = read / (ms / 1e3) / rate
        rows.append(
            [
                name,
                form,
                str(threads),
                peer,
                f"{ms:.2f}",
                f"{min(times[peer]):.2f}",
                f"{100 * share:.0f} %",
            ]
            + [f"{read / 1e6:.0f}", f"{rate / 1e9:.1f}"]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["gpt2", "llama-4-layers"])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=8, help="turns of each peer")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        peer, name, form, threads = options.work
        work(peer, name, form, int(threads))
        return
    rows = []
    for name in options.models:
        for form in options.formats:
            for threads in options.threads:
                rows += measure(name, form, options.peers, threads, options.rounds)
    titles = [
        "model",
        "weights",
        "threads",
        "peer",
        "ms a token",
        "least",
        "of the bandwidth",
        "MB",
        "GB/s",
    ]
    print(table(titles, rows))


if __name__ == "__main__":
    main()
