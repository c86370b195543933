"""A decoder with a cache of keys and values: a prompt and single tokens in one engine, the cache changed in place."""

import copy

import torch
from torch import nn

import torch_tensorrt


class Decoder(nn.Module):
    """One layer: forward(tokens [1, n], positions [n]) gives logits [1, n, vocabulary]."""

    def __init__(self, vocabulary: int = 100, size: int = 64, heads: int = 4, length: int = 128):
        super().__init__()
        self.heads, self.each = heads, size // heads
        self.embedding = nn.Embedding(vocabulary, size)
        self.places = nn.Embedding(length, size)
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, vocabulary)
        self.register_buffer("keys", torch.zeros(1, heads, length, self.each))
        self.register_buffer("values", torch.zeros(1, heads, length, self.each))
        self.register_buffer("slots", torch.arange(length))

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.places(positions)
        qkv = self.qkv(x).view(1, -1, 3, self.heads, self.each).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        self.keys.index_copy_(2, positions, k)
        self.values.index_copy_(2, positions, v)
        keep = self.slots <= positions[:, None]
        y = nn.functional.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=keep)
        return self.out(x + y.transpose(1, 2).reshape(x.shape))


torch.manual_seed(0)
model = Decoder().eval()
prompt, count = torch.tensor([[7, 3, 55, 20, 9]]), torch.export.Dim("count", min=1, max=64)
program = torch.export.export(
    copy.deepcopy(model),
    (prompt, torch.arange(5)),
    dynamic_shapes={"tokens": {1: count}, "positions": {0: count}},
)
decoder = torch_tensorrt.dynamo.compile(program, min_block_size=1)

tokens, expected = prompt, prompt
with torch.no_grad():
    for step in range(10):
        new = tokens if step == 0 else tokens[:, -1:]  # the prompt, then one at a time
        positions = torch.arange(tokens.shape[1])[-new.shape[1] :]
        tokens = torch.cat((tokens, decoder(new, positions)[:, -1:].argmax(-1)), 1)
        # What eager PyTorch makes of the whole text, each time anew.
        logits = copy.deepcopy(model)(expected, torch.arange(expected.shape[1]))
        expected = torch.cat((expected, logits[:, -1:].argmax(-1)), 1)
assert torch.equal(tokens, expected)
print("tokens", tokens[0].tolist())
