"""Archives of torch.export as it writes them: in-place operators on buffers, inputs, values and their views."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import kiln


def rows(x: Tensor, b: Tensor) -> Tensor:
    b[1] = x[0]
    b[:, 2:4] += 1
    return b * 2


def views(x: Tensor, b: Tensor) -> Tensor:
    first, second = b[:2], b.t()
    second.mul_(2)  # changes what `first` shows
    first[0].add_(x[1])
    return first + second.t()[:2] + x[:2]


def of_values(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    y = x + b
    z = y.view(2, 2, 6)
    z[1].zero_()
    y.transpose(0, 1)[3].fill_(7)
    w = y.unsqueeze(0).permute(2, 0, 1)
    w[0, 0, 0] = -1
    return z, y.squeeze() + w.reshape(6, 4).t()


def pieces(x: Tensor, b: Tensor) -> Tensor:
    left, middle, _right = b.split(2, dim=1)
    _, last = x.clone().chunk(2)
    left.add_(last[0, :2])
    middle.copy_(left)
    b.unbind(0)[3].sub_(1)
    b.narrow(0, 1, 2).clamp_(max=1)
    return left + middle


def of_indices(x: Tensor, b: Tensor) -> Tensor:
    b.index_copy_(0, torch.tensor([2, 0]), x[:2])
    b[torch.tensor([3])] = x[3]
    b.index_add_(0, torch.tensor([1, 1]), x[2:])
    b[b > 1] = 0.5
    return torch.relu_(b - 0.25)


def of_input(x: Tensor, b: Tensor) -> Tensor:
    y = x.detach()
    x += b
    x[0].neg_()
    return y.mul(2)


def other_types(x: Tensor, b: Tensor) -> Tensor:
    b.add_(x.double().sum().to(torch.float32))
    h = x.to(torch.float16)
    h.mul_(2)  # a copy: x stays
    b[0].copy_(h[0])
    return h.float() + x


def many(x: Tensor, b: Tensor) -> Tensor:
    for i in range(6):
        b[:, i].mul_(0.5)
        b[:, i] += x[:, i]
        b[i % 4, i] = i
    return b + 1


def aliases(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = b.view(-1)
    z = y.add_(1)
    z[0] = 5
    return y, z, b


def last_use(x: Tensor, b: Tensor) -> Tensor:
    """What may be a copy is changed, and what it may be a copy of is not used any more."""
    y = (x + b).t()
    return y.reshape(4, 6).relu_() + y.shape[0]


def views_of_a_copy(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What may be a copy is changed while there are views of it, and after what it may be a view of was changed."""
    y = x + b
    y.add_(1)
    z = y.t().contiguous()
    v, w = z.view(-1), z[1:]
    z.mul_(2)
    w.sub_(3)
    return z, v + 0, w + 0


MODELS = [
    rows,
    views,
    of_values,
    pieces,
    of_indices,
    of_input,
    other_types,
    many,
    aliases,
    last_use,
    views_of_a_copy,
]


class Model(torch.nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("b", torch.arange(24.0).reshape(4, 6) / 8)

    def forward(self, x: Tensor):
        return self.function(x, self.b)


def compiled(function: Callable, folder: Path) -> tuple[Model, kiln.Engine]:
    model = Model(function).eval()
    program = torch.export.export(copy.deepcopy(model), (torch.randn(4, 6),))
    torch.export.save(program, folder / "model.pt2")
    return model, kiln.load(bytes(kiln.compile(folder / "model.pt2")))


@torch.no_grad()
@pytest.mark.parametrize("function", MODELS, ids=lambda function: function.__name__)
def test_results_and_state_are_eagers(function, tmp_path) -> None:
    torch.manual_seed(0)
    model, engine = compiled(function, tmp_path)
    state = {"buf_b": model.b.numpy().copy()}
    session = engine.session(1)
    for _ in range(3):
        x = torch.randn(4, 6)
        arrays = [state.get(info.name, x.numpy().copy()) for info in engine.inputs]
        results = session.run(*arrays, in_place=True)
        expected = model(x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for result, wanted in zip(results, expected, strict=False):
            np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
        for info, array in zip(engine.inputs, arrays, strict=True):
            wanted = model.b if info.name == "buf_b" else x
            np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)


def doubtful_input(x: Tensor, b: Tensor) -> Tensor:
    x.t().reshape(-1).add_(1)
    return x + b


def doubtful_value(x: Tensor, b: Tensor) -> Tensor:
    y = x + b
    y.t().reshape(4, 6).relu_()
    return y


def seen_later(x: Tensor, b: Tensor) -> Tensor:
    y = x + b
    z = y.t().contiguous()
    y.add_(1)
    return z


def constant(x: Tensor, b: Tensor) -> Tensor:
    return x + CONSTANT.add_(1)


CONSTANT = torch.ones(6)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (doubtful_input, "may be the memory of the input x"),
        (doubtful_value, "may be the memory of"),
        (seen_later, "memory that .* may be a view of, which is used later"),
        (constant, "constant"),
    ],
)
def test_what_may_be_a_copy_is_refused(function, text, tmp_path) -> None:
    with pytest.raises(kiln.KilnError, match=text):
        compiled(function, tmp_path)


# Results that PyTorch may make views: what is written through them is seen in the operand, and the reverse.
VIEWS = {
    "_conj": torch.conj,
    "_neg_view": lambda y: torch.view_as_complex(y.view(4, 3, 2)).conj().imag,
    "adjoint": lambda y: y.adjoint(),
    "alias": torch.ops.aten.alias,
    "alpha_dropout": lambda y: torch.alpha_dropout(y, 0.5, False),
    "as_strided": lambda y: y.as_strided((3, 4), (4, 1)),
    "atleast_1d": torch.atleast_1d,
    "atleast_2d": torch.atleast_2d,
    "atleast_3d": torch.atleast_3d,
    "broadcast_to": lambda y: y.broadcast_to(4, 6),
    "chunk": lambda y: y.chunk(3, 1)[1],
    "conj": torch.conj,
    "conj_physical": torch.conj_physical,
    "contiguous": lambda y: y.contiguous(),
    "detach": lambda y: y.detach(),
    "diagonal": lambda y: y.diagonal(1),
    "dropout": lambda y: torch.dropout(y, 0.5, False),
    "einsum": lambda y: torch.einsum("ij->ji", y),
    "expand": lambda y: y.expand(4, 6),
    "expand_as": lambda y: y.expand_as(torch.ones(4, 6)),
    "feature_dropout": lambda y: torch.feature_dropout(y, 0.5, False),
    "flatten": lambda y: y.flatten(),
    "imag": lambda y: torch.view_as_complex(y.view(4, 3, 2)).imag,
    "linalg_diagonal": lambda y: torch.linalg.diagonal(y),
    "mT": lambda y: y.mT,
    "matrix_H": lambda y: y.H,
    "meshgrid": lambda y: torch.meshgrid(y[0], y[1], indexing="ij")[1][0],
    "moveaxis": lambda y: y.moveaxis(0, 1),
    "movedim": lambda y: y.movedim(0, 1),
    "narrow": lambda y: y.narrow(1, 1, 2),
    "numpy_T": lambda y: y.T,
    "permute": lambda y: y.permute(1, 0),
    "positive": lambda y: y.positive(),
    "ravel": lambda y: y.ravel(),
    "real": lambda y: torch.real(y),
    "reshape": lambda y: y.reshape(2, 12),
    "reshape_as": lambda y: y.reshape_as(torch.ones(2, 12)),
    "resolve_conj": lambda y: y.resolve_conj(),
    "resolve_neg": lambda y: y.resolve_neg(),
    "select": lambda y: y[1],
    "slice": lambda y: y[1:3, ::2],
    "split": lambda y: y.split(2)[1],
    "split_with_sizes": lambda y: y.split([1, 3])[1],
    "squeeze": lambda y: y.squeeze(),
    "swapaxes": lambda y: y.swapaxes(0, 1),
    "swapdims": lambda y: y.swapdims(0, 1),
    "t": lambda y: y.t(),
    "tensor_split": lambda y: y.tensor_split(3)[1],
    "to": lambda y: y.to(torch.float32),
    "transpose": lambda y: y.transpose(0, 1),
    "type_as": lambda y: y.type_as(torch.ones(1)),
    "unbind": lambda y: y.unbind(1)[2],
    "unflatten": lambda y: y.unflatten(1, (2, 3)),
    "unfold": lambda y: y.unfold(1, 2, 2),
    "unsqueeze": lambda y: y.unsqueeze(0),
    "view": lambda y: y.view(3, 8),
    "view_as": lambda y: y.view_as(torch.ones(8, 3)),
    "view_as_complex": lambda y: torch.view_as_real(torch.view_as_complex(y.view(4, 3, 2))),
    "view_as_real": lambda y: torch.view_as_real(torch.view_as_complex(y.view(4, 3, 2)))[0],
}


def test_the_list_of_views_is_whole() -> None:
    """Every operator that Kiln compiles and whose schema in PyTorch gives a view is in VIEWS."""
    missing = set()
    copied = {"lift_fresh"}  # by torch.export: lift_fresh_copy
    for target in kiln.supported_ops()["aten"]:
        _, name, overload = target.split(".")
        operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
        if operator is None:
            continue
        seen = [result.alias_info for result in operator._schema.returns if result.alias_info]
        if seen and not any(alias.is_write for alias in seen) and name not in VIEWS.keys() | copied:
            missing.add(name)
    assert not missing


@torch.no_grad()
@pytest.mark.parametrize("name", VIEWS)
def test_memory_that_two_names_have(name, tmp_path) -> None:
    def through_the_view(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        y = x + b
        VIEWS[name](y).mul_(2)
        return y

    def under_the_view(x: Tensor, b: Tensor) -> Tensor:
        y = x + b
        view = VIEWS[name](y)
        y.mul_(2)
        return view + 0

    for function in (through_the_view, under_the_view):
        try:
            model, engine = compiled(function, tmp_path)
        except kiln.KilnError as error:
            assert "got a change in place" in str(error) or "not supported" in str(error)
            continue
        x = torch.randn(4, 6)
        arrays = [model.b.numpy() if i.name == "buf_b" else x.numpy() for i in engine.inputs]
        np.testing.assert_allclose(engine.session(1).run(*arrays)[0], model(x), rtol=1e-5)
