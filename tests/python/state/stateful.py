"""Models that change buffers and inputs, one for each way of writing."""

import torch


class Cache(torch.nn.Module):
    """Scores of new rows against all rows of a cache that they were written to, and a count of the steps."""

    def __init__(self, way: str, batch: int = 1, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.way = way
        size = (batch, 2, 12, 8)
        start = torch.arange(batch * 192).reshape(size) % 7 / 4
        self.register_buffer("cache", start.to(dtype))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        getattr(self, self.way)(x * 2, places)
        self.steps.add_(1)
        scores = (x.float() @ self.cache.float().transpose(-1, -2)).softmax(-1)
        return scores + self.steps

    def index_copy(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache.index_copy_(2, places, x)

    def index_put(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache[:, :, places] = x

    def accumulate(self, x: torch.Tensor, places: torch.Tensor) -> None:
        torch.ops.aten.index_put_(self.cache, [None, None, places], x, True)

    def slice(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache[:, :, 3 : 3 + x.shape[2]] = x

    def scatter(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache.scatter_(2, places.reshape(1, 1, -1, 1).expand(x.shape), x)

    def shift(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache.copy_(torch.cat((self.cache[:, :, x.shape[2] :], x), 2))

    def arithmetic(self, x: torch.Tensor, places: torch.Tensor) -> None:
        self.cache.mul_(0.5).add_(x.mean(2, keepdim=True).to(self.cache.dtype))

    def per_head(self, x: torch.Tensor, places: torch.Tensor) -> None:
        for head in range(2):
            self.cache[:, head].index_copy_(1, places, x[:, head])


WAYS = (
    *("index_copy", "index_put", "accumulate", "slice", "scatter", "shift", "arithmetic"),
    "per_head",
)


class InputCache(torch.nn.Module):
    """The same, of a cache that the caller has."""

    def forward(self, x: torch.Tensor, places: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(2, places, x)
        return (x @ cache.transpose(-1, -2)).sum(-1)


def inputs(
    step: int, batch: int = 1, rows: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(-4, 5, (batch, 2, rows, 8), generator=generator) / 4
    return x.to(dtype), (torch.arange(rows) + 3 * step) % 12
