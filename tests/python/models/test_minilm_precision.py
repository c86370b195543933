"""MiniLM with its real weights in bf16 and in what Kiln quantises: embeddings of 200 sentences beside f32's."""

import pydoc_data.topics
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import kiln

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import models

pytestmark = pytest.mark.full_size  # make test-models


class Embedding(torch.nn.Module):
    """The mean of the tokens' vectors, of length 1, as sentence-transformers makes it."""

    def __init__(self, dtype):
        super().__init__()
        self.model = models.make_minilm(True).to(dtype)

    def forward(self, ids, mask):
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask[..., None].float()
        return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def sentences():
    text = " ".join(pydoc_data.topics.topics[topic] for topic in sorted(pydoc_data.topics.topics))
    text = re.sub(r"[\s*`|=+-]+", " ", text)
    found = [each for each in re.split(r"(?<=[.!?]) ", text) if 40 < len(each) < 200]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:264]]


@pytest.fixture(scope="module")
def batches():
    tokenizer = transformers.AutoTokenizer.from_pretrained(models.minilm_path())
    chosen = sentences()

    def batch(part):
        tokens = tokenizer(part, padding=True, return_tensors="np")
        return tokens["input_ids"].astype(np.int64), tokens["attention_mask"].astype(np.int64)

    return [batch(chosen[i : i + 8]) for i in range(0, 264, 8)]


def exported(folder, dtype):
    path = folder / f"{dtype}.pt2".replace("torch.", "")
    sizes = {0: torch.export.Dim("b", min=1, max=8), 1: torch.export.Dim("l", min=2, max=128)}
    ids = torch.ones(2, 16, dtype=torch.long)
    program = torch.export.export(Embedding(dtype).eval(), (ids, ids), dynamic_shapes=(sizes,) * 2)
    torch.export.save(program, path)
    return path


def ranks(values):
    return values.argsort().argsort()


def compare(actual, expected):
    """The least cosine of a sentence's two embeddings, and how alike all pairs of sentences rank (Spearman)."""
    pairs = np.triu_indices(len(expected), 1)
    one, other = ((each @ each.T)[pairs] for each in (actual, expected))
    return (actual * expected).sum(1).min(), np.corrcoef(ranks(one), ranks(other))[0, 1]


def test_embeddings_and_ranks_stay(batches, tmp_path):
    tests, calibration = batches[:25], batches[25:]
    path = exported(tmp_path, torch.float32)

    def embed(engine):
        session = kiln.load(engine).session()
        return np.concatenate([session.run(*batch)[0] for batch in tests])

    expected = embed(kiln.compile(path))
    assert len(expected) == 200
    for name, cosine, rank, engine in (
        ("bf16", 0.9999, 0.9995, lambda: kiln.compile(exported(tmp_path, torch.bfloat16))),
        ("int8", 0.99, 0.985, lambda: kiln.compile(path, quantize="int8", calibration=calibration)),
        ("int8-weights", 0.995, 0.995, lambda: kiln.compile(path, quantize="int8-weights")),
    ):
        found = compare(embed(engine()), expected)
        print(name, *found)
        assert found[0] >= cosine and found[1] >= rank, (name, found)
