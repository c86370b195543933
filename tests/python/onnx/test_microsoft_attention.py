"""Attention of com.microsoft beside definitions in numpy, row by row, and beside ONNX Runtime where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_runtime import results_of_onnx_runtime  # noqa: E402

import kiln  # noqa: E402

DOMAIN = "com.microsoft"
CODES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}
Tensors = dict[str, Any]
rng = np.random.default_rng(0)

QUERY_INPUTS = [
    "query",
    "key",
    "value",
    "past_key",
    "past_value",
    "seqlens_k",
    "total",
    "cos",
    "sin",
    "position_ids",
    "bias",
    "sink",
    "k_scale",
    "v_scale",
    "q_norm",
    "k_norm",
    "query_seqlens",
]
HEAD_INPUTS = ["query", "key", "value", "bias", "mask", "attention_bias", "past_key", "past_value"]
ROTARY_INPUTS = ["x", "position_ids", "cos", "sin"]


def saved(
    folder: Path, operator: str, order: list[str], given: Tensors, outputs: int, **options: Any
) -> Path:
    """A model of one operator. `constants` name inputs that are none of the model's, and `dims` names of sizes."""
    constants, dims = options.pop("constants", ()), options.pop("dims", {})
    names = [name if name in given else "" for name in order]
    while not names[-1]:
        names.pop()
    node = helper.make_node(
        operator, names, [f"y{i}" for i in range(outputs)], domain=DOMAIN, **options
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [
            helper.make_tensor_value_info(name, CODES[str(x.dtype)], dims.get(name, x.shape))
            for name, x in given.items()
            if name not in constants
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [numpy_helper.from_array(given[name], name) for name in constants],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    path = folder / "model.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def results(engine: kiln.Engine, given: Tensors) -> list[np.ndarray]:
    return engine.session().run(*(given[info.name] for info in engine.inputs))


def assert_near(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    bound = 1e-2 if got.dtype == np.float16 else 1e-5
    difference = np.linalg.norm(got.astype(np.float64) - want.astype(np.float64))
    assert difference <= bound * np.linalg.norm(want.astype(np.float64))


def tensor(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def lengths(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def rotated(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, interleaved: bool) -> np.ndarray:
    """One head at one position."""
    pairs, y = cos.size, x.copy()
    first, second = (
        (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
        if interleaved
        else (slice(0, pairs), slice(pairs, 2 * pairs))
    )
    y[first] = x[first] * cos - x[second] * sin
    y[second] = x[first] * sin + x[second] * cos
    return y


# --- GroupQueryAttention ---


def group_query(given: Tensors, heads: int, kv_heads: int, **options: Any) -> list[Any]:
    """Results, with NaN where they are not specified."""
    x = {name: np.asarray(value, np.float64) for name, value in given.items()}
    batch, length, width = x["query"].shape
    if "key" in x:
        query, key, value = x["query"], x["key"], x["value"]
    else:
        own = width // (heads + 2 * kv_heads)
        query, key, value = np.split(x["query"], [own * heads, own * (heads + kv_heads)], axis=2)
    query = query.reshape(batch, length, heads, -1)
    key, value = (each.reshape(batch, length, kv_heads, -1) for each in (key, value))
    size = query.shape[3]
    if "q_norm" in x:
        norm = lambda y, w: y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-6) * w  # noqa: E731
        query, key = norm(query, x["q_norm"]), norm(key, x["k_norm"])
    room = x["past_key"].shape[2] if "past_key" in x else 0
    result = np.full((batch, length, heads, size), np.nan)
    caches = np.full((2, batch, kv_heads, max(int(given["total"]), room), size), np.nan)
    for b in range(batch):
        total = int(given["seqlens_k"][b]) + 1
        count = int(given["query_seqlens"][b]) if "query_seqlens" in x else min(length, total)
        past = total - count
        for i in range(count):
            place = past + i
            if "position_ids" in x:
                begins = given["total"] == length
                ids = given["position_ids"]
                place = int(ids[0, 0] + i if begins else ids[b, i])
            if options.get("do_rotary"):
                angles = x["cos"][place], x["sin"][place], bool(options.get("rotary_interleaved"))
                for each in (query, key):
                    for head in range(each.shape[2]):
                        each[b, i, head] = rotated(each[b, i, head], *angles)
        for cache, old, new in zip(caches, ("past_key", "past_value"), (key, value), strict=True):
            if past:
                cache[b, :, :past] = x[old][b, :, :past]
            cache[b, :, past:total] = new[b, :count].swapaxes(0, 1)
        for i in range(count):
            last = past + i if options.get("causal", 1) else total - 1
            first = max(0, last + 1 - options.get("local_window_size", total))
            seen = slice(first, last + 1)
            for head in range(heads):
                group = head // (heads // kv_heads)
                scores = caches[0, b, group, seen] @ query[b, i, head]
                scores = scores * options.get("scale", size**-0.5)
                if cap := options.get("softcap"):
                    scores = np.tanh(scores / cap) * cap
                if "bias" in x:
                    bias = x["bias"][min(b, x["bias"].shape[0] - 1)]
                    scores = scores + bias[min(head, bias.shape[0] - 1), i, seen]
                beside = x["sink"][head : head + 1] if "sink" in x else np.zeros(1)
                if "sink" not in x and not options.get("smooth_softmax"):
                    beside = np.full(1, -np.inf)
                weights = softmax(np.concatenate([scores, beside]))[:-1]
                result[b, i, head] = weights @ caches[1, b, group, seen]
    return [result.reshape(batch, length, -1), *caches]


def groups(batch: int, length: int, size: int, room: int | None, **more: Any) -> Tensors:
    """Operands of 4 heads, and 2 of keys."""
    given = {
        "query": tensor(batch, length, 4 * size),
        "key": tensor(batch, length, 2 * size),
        "value": tensor(batch, length, 2 * size),
    }
    if room is not None:
        given["past_key"] = tensor(batch, 2, room, size)
        given["past_value"] = tensor(batch, 2, room, size)
    return given | more


def packed(batch: int, length: int, size: int, room: int | None, **more: Any) -> Tensors:
    given = groups(batch, length, size, room, **more)
    rows = [given.pop(name) for name in ("query", "key", "value")]
    return {"query": np.concatenate(rows, 2), **given}


def tables(size: int, pairs: int | None = None) -> Tensors:
    angles = rng.uniform(0, 6, (24, pairs or size // 2))
    return {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}


def at(seqlens_k: Any, total: int) -> Tensors:
    return {"seqlens_k": lengths(*seqlens_k), "total": np.array(total, np.int32)}


FIRST = at((4, 4), 5)
GROUPS: dict[str, tuple[Tensors, Tensors]] = {
    "a prompt": (groups(2, 5, 8, None, **FIRST), {}),
    "a prompt of one row": (groups(1, 1, 8, None, **at((0,), 1)), {}),
    "prompts of different lengths": (groups(2, 5, 8, None, **at((4, 2), 5)), {}),
    "a prompt in a cache": (groups(2, 5, 8, 9, **FIRST), {"scale": 0.3}),
    "a step in a cache": (groups(2, 1, 8, 7, **at((6, 3), 7)), {}),
    "a step that grows it": (groups(2, 1, 8, 7, **at((7, 7), 8)), {"softcap": 1.5}),
    "several rows after others": (groups(1, 3, 8, 6, **at((8,), 9)), {"local_window_size": 4}),
    "a window of one": (groups(2, 5, 8, None, **FIRST), {"local_window_size": 1}),
    "a window in a cache": (
        groups(2, 1, 8, 9, **at((8, 2), 9)),
        {"local_window_size": 3, "softcap": 2.0},
    ),
    "both directions": (groups(2, 5, 8, None, **FIRST), {"causal": 0}),
    "both directions in a cache": (groups(2, 1, 8, 9, **at((8, 2), 9)), {"causal": 0}),
    "a bias": (
        groups(2, 1, 8, 7, **at((6, 3), 7), bias=tensor(1, 4, 1, 7)),
        {"softcap": 1.5, "local_window_size": 5},
    ),
    "a bias in a longer cache": (groups(2, 1, 8, 9, **at((6, 3), 7), bias=tensor(2, 1, 1, 7)), {}),
    "a smooth softmax": (groups(2, 5, 8, None, **FIRST), {"smooth_softmax": 1}),
    "a sink of each head": (
        groups(2, 1, 8, 7, **at((6, 3), 7), sink=tensor(4)),
        {"local_window_size": 3},
    ),
    "rotation": (groups(2, 1, 16, 7, **at((6, 3), 7), **tables(16)), {"do_rotary": 1}),
    "rotation of neighbours": (
        groups(2, 5, 16, None, **FIRST, **tables(16)),
        {"do_rotary": 1, "rotary_interleaved": 1},
    ),
    "rotation of a part": (groups(2, 5, 32, None, **FIRST, **tables(32, 8)), {"do_rotary": 1}),
    "rotation of packed rows": (packed(1, 3, 16, 4, **at((6,), 7), **tables(16)), {"do_rotary": 1}),
    "packed rows": (packed(2, 5, 8, None, **FIRST), {}),
    "places of a prompt": (
        groups(2, 5, 16, None, **FIRST, **tables(16), position_ids=rng.integers(1, 9, (2, 5))),
        {"do_rotary": 1},
    ),
    "places of a step": (
        groups(2, 1, 16, 7, **at((6, 3), 7), **tables(16), position_ids=np.array([[9], [2]])),
        {"do_rotary": 1},
    ),
    "rows that are padded": (
        groups(2, 5, 16, 20, **at((6, 3), 20), **tables(16), query_seqlens=lengths(5, 2)),
        {"do_rotary": 1},
    ),
}  # fmt: skip
NORMALISED = (
    groups(2, 5, 16, None, **FIRST, **tables(16), q_norm=tensor(16), k_norm=tensor(16)),
    {"do_rotary": 1},
)
HEADS = {"num_heads": 4, "kv_num_heads": 2}


def assert_specified(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for each, expected in zip(got, want, strict=True):
        assert each.shape == expected.shape
        known = ~np.isnan(expected)
        assert known.any()
        assert_near(each[known], expected[known])


@pytest.mark.parametrize("name", [*GROUPS, "normalised"])
def test_attention_of_groups(name: str, tmp_path: Path) -> None:
    given, options = GROUPS.get(name, NORMALISED)
    path = saved(
        tmp_path, "GroupQueryAttention", QUERY_INPUTS, given, 3, constants=("total",), **HEADS, **options
    )  # fmt: skip
    want = group_query(given, 4, 2, **options)
    assert_specified(results(kiln.load(kiln.compile(path, verify_passes=True)), given), want)
    if name != "normalised":  # not on CPUs
        assert_specified(results_of_onnx_runtime(path, given), want)


@pytest.mark.parametrize("known", ["by a mask", "in the data"])
def test_attention_of_groups_of_any_length(known: str, tmp_path: Path) -> None:
    """Prompt and steps of one model, as language models are exported: the whole length is a size of the mask."""
    first = packed(2, 5, 16, 0, **FIRST, **tables(16))
    dims = {
        "query": ["b", "s", 128],
        "past_key": ["b", 2, "p", 16],
        "past_value": ["b", 2, "p", 16],
        "seqlens_k": ["b"],
    }
    options = {"do_rotary": 1, "local_window_size": 6}
    path = saved(
        tmp_path, "GroupQueryAttention", QUERY_INPUTS, first, 3, constants=("cos", "sin"), dims=dims,
        **HEADS, **options,
    )  # fmt: skip
    if known == "by a mask":
        model = onnx.load(path)
        total = next(x for x in model.graph.input if x.name == "total")
        total.CopyFrom(helper.make_tensor_value_info("mask", TensorProto.INT64, ["b", "t"]))
        nodes = [
            helper.make_node("Shape", ["mask"], ["whole"], start=1),
            helper.make_node("Cast", ["whole"], ["whole_32"], to=TensorProto.INT32),
            helper.make_node("Squeeze", ["whole_32"], ["total"]),
            model.graph.node[0],
        ]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        path.write_bytes(model.SerializeToString())
    ranges = [
        kiln.InputRange(name, 2, min=0, opt=16, max=64) for name in ("past_key", "past_value")
    ]
    engine = kiln.load(kiln.compile(path, ranges=ranges, verify_passes=True))
    for batch, length, room, seqlens in (
        (2, 5, 0, (4, 3)),
        (1, 1, 5, (5,)),
        (3, 1, 9, (4, 8, 0)),
        (2, 1, 20, (8, 3)),  # caches with room
    ):
        total = max(seqlens) + 1
        given = packed(batch, length, 16, room, **at(seqlens, total)) | {
            name: first[name] for name in ("cos", "sin")
        }
        want = group_query(given, 4, 2, **options)
        given["mask"] = np.ones((batch, total), np.int64)
        assert_specified(results(engine, given), want)


# --- MultiHeadAttention ---


def multi_head(given: Tensors, heads: int, **options: Any) -> list[np.ndarray]:
    x = {name: np.asarray(value, np.float64) for name, value in given.items()}
    batch, length = x["query"].shape[:2]
    query, key, value = x["query"], x.get("key"), x.get("value")
    if query.ndim == 5:
        query, key, value = (query[:, :, :, i] for i in range(3))
    elif key.ndim == 5:
        key, value = key[:, :, :, 0], key[:, :, :, 1]
    has_heads = value.ndim == 4 and "key" in x and x["key"].ndim == 4
    rows = [query, key.swapaxes(1, 2), value.swapaxes(1, 2)] if has_heads else [query, key, value]
    query, key, value = (y.reshape(*y.shape[:2], heads, -1) for y in rows)
    if "bias" in x:
        width = query.shape[2] * query.shape[3]
        bias = np.split(x["bias"], [width, 2 * width])
        query = query + bias[0].reshape(heads, -1)
        if not has_heads:
            key, value = key + bias[1].reshape(heads, -1), value + bias[2].reshape(heads, -1)
    query, key, value = (y.swapaxes(1, 2) for y in (query, key, value))
    past = 0
    if "past_key" in x:
        past = x["past_key"].shape[2]
        key = np.concatenate([x["past_key"], key], 2)
        value = np.concatenate([x["past_value"], value], 2)
    keys = key.shape[2]
    scores = query @ key.swapaxes(2, 3) * options.get("scale", query.shape[3] ** -0.5)
    if "attention_bias" in x:
        scores = scores + x["attention_bias"]
    if "mask" in x:
        mask = given["mask"]
        if mask.ndim == 1:
            mask = np.arange(keys) < mask[:, None]
        mask = mask.reshape(batch, 1, -1, keys)
        scores = scores + np.where(mask > 0, 0, options.get("mask_filter_value", -10000.0))
    result = np.empty((batch, length, heads, value.shape[3]))
    for i in range(length):
        seen = past + i + 1 if options.get("unidirectional") and i < length - 1 else keys
        for b in range(batch):
            for head in range(heads):
                weights = softmax(scores[b, head, i, :seen])
                result[b, i, head] = weights @ value[b, head, :seen]
    return [result.reshape(batch, length, -1), key, value]


def rows_of(batch: int, length: int, keys: int, value_size: int = 8, **more: Any) -> Tensors:
    """Operands of 3 heads of size 8."""
    return {
        "query": tensor(batch, length, 24),
        "key": tensor(batch, keys, 24),
        "value": tensor(batch, keys, 3 * value_size),
    } | more


def past(batch: int, length: int) -> Tensors:
    return {name: tensor(batch, 3, length, 8) for name in ("past_key", "past_value")}


CAUSAL = {"unidirectional": 1}
MULTI_HEAD: dict[str, tuple[Tensors, Tensors]] = {
    "plain": (rows_of(2, 5, 5), {}),
    "a value of another size": (rows_of(2, 5, 7, 6), {"scale": 0.3}),
    "a bias": (rows_of(2, 5, 5, bias=tensor(72)), CAUSAL),
    "causal": (rows_of(2, 5, 5), CAUSAL),
    "causal with more keys": (rows_of(2, 3, 5), CAUSAL),
    "causal with one row": (rows_of(2, 1, 5), CAUSAL),
    # of a sequence that is nothing but padding, the scores keep fewer digits beside -10000
    "lengths": (rows_of(2, 5, 5, mask=lengths(3, 0)), {"mask_filter_value": -16.0}),
    "padding": (
        rows_of(2, 5, 5, mask=np.array([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], np.int32)),
        {"mask_filter_value": -16.0, **CAUSAL},
    ),
    "padding of each row": (
        rows_of(2, 5, 4, mask=rng.integers(0, 2, (2, 5, 4)).astype(np.int32)),
        {"mask_filter_value": -2.0},
    ),
    "a bias of scores": (
        rows_of(2, 5, 5, mask=lengths(5, 2), attention_bias=tensor(1, 3, 5, 5)),
        {},
    ),
    "a past": (rows_of(2, 3, 3, **past(2, 4), bias=tensor(72)), CAUSAL),
    "a past of nothing": (rows_of(2, 3, 3, **past(2, 0)), CAUSAL),
    "a padded past": (
        rows_of(
            2, 1, 1, **past(2, 4), attention_bias=tensor(2, 1, 1, 5),
            mask=np.array([[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]], np.int32),
        ),
        CAUSAL,
    ),
    "keys with heads": (
        {"query": tensor(2, 3, 24), "key": tensor(2, 3, 5, 8), "value": tensor(2, 3, 5, 8), "bias": tensor(72)},
        {},
    ),
    "packed keys": ({"query": tensor(2, 3, 24), "key": tensor(2, 5, 3, 2, 8), "bias": tensor(72)}, {}),
    "packed rows": ({"query": tensor(2, 5, 3, 3, 8)}, CAUSAL),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTI_HEAD)
def test_attention_of_several_heads(name: str, tmp_path: Path) -> None:
    given, options = MULTI_HEAD[name]
    outputs = 3 if "past_key" in given else 1
    path = saved(
        tmp_path, "MultiHeadAttention", HEAD_INPUTS, given, outputs, num_heads=3, **options
    )
    want = multi_head(given, 3, **options)[:outputs]
    for got, expected in zip(
        results(kiln.load(kiln.compile(path, verify_passes=True)), given), want, strict=True
    ):
        assert_near(got, expected)
    if not name.startswith("packed"):  # not on CPUs
        for got, expected in zip(results_of_onnx_runtime(path, given), want, strict=True):
            assert_near(got, expected)


def test_attention_of_several_heads_of_any_length(tmp_path: Path) -> None:
    options = {
        "mask_filter_value": -16.0,
        **CAUSAL,
    }  # of nothing but padding, scores keep their digits
    given = rows_of(2, 3, 3, **past(2, 4), mask=np.ones((2, 7), np.int32))
    names = {"query": ["b", "s", 24], "key": ["b", "s", 24], "value": ["b", "s", 24]}
    names |= {name: ["b", 3, "p", 8] for name in ("past_key", "past_value")}
    path = saved(
        tmp_path, "MultiHeadAttention", HEAD_INPUTS, given, 3, num_heads=3, dims=names | {"mask": ["b", "t"]},
        **options,
    )  # fmt: skip
    ranges = [
        kiln.InputRange(name, 2, min=0, opt=16, max=64) for name in ("past_key", "past_value")
    ]
    engine = kiln.load(kiln.compile(path, ranges=ranges, verify_passes=True))
    for batch, length, before in ((1, 1, 0), (2, 5, 0), (3, 1, 9), (2, 3, 17)):
        mask = rng.integers(0, 2, (batch, length + before)).astype(np.int32)
        given = rows_of(batch, length, length, **past(batch, before), mask=mask)
        for got, want in zip(results(engine, given), multi_head(given, 3, **options), strict=True):
            assert_near(got, want)
    given["mask"] = np.ones((2, 19), np.int32)
    with pytest.raises(kiln.KilnError, match="a mask for"):
        results(engine, given)


# --- Attention ---

PROJECTED_INPUTS = ["x", "weights", "bias", "mask", "past", "attention_bias"]


def projected(batch: int, length: int, value_size: int = 8, **more: Any) -> Tensors:
    """An input of 12 elements for 3 heads of size 8."""
    width = 48 + 3 * value_size
    return {
        "x": tensor(batch, length, 12),
        "weights": tensor(12, width),
        "bias": tensor(width),
    } | more


PROJECTED: dict[str, tuple[Tensors, Tensors]] = {
    "plain": (projected(2, 5), {}),
    "a value of another size": (projected(2, 5, 6), {"qkv_hidden_sizes": [24, 24, 18], "scale": 0.3}),
    "lengths": (projected(2, 5, mask=lengths(3, 5)), {}),
    "ends and starts": (projected(2, 5, mask=lengths(5, 4, 2, 0)), CAUSAL),
    "padding": (projected(2, 5, mask=np.array([[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)), {}),
    "padding of each row": (
        projected(2, 5, mask=rng.integers(0, 2, (2, 5, 5)).astype(np.int32), attention_bias=tensor(1, 3, 5, 5)),
        {"mask_filter_value": -2.0},
    ),
    "a past": (
        projected(2, 3, past=tensor(2, 2, 3, 4, 8), mask=np.array([[0] * 2 + [1] * 5, [1] * 7], np.int32)),
        CAUSAL,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROJECTED)
def test_attention_with_projections(name: str, tmp_path: Path) -> None:
    given, options = PROJECTED[name]
    outputs = 2 if "past" in given else 1
    path = saved(
        tmp_path, "Attention", PROJECTED_INPUTS, given, outputs, constants=("weights", "bias"), num_heads=3,
        **options,
    )  # fmt: skip
    rows = given["x"].astype(np.float64) @ given["weights"] + given["bias"]
    heads = dict(zip(("query", "key", "value"), np.split(rows, [24, 48], 2), strict=True))
    heads |= {key: given[key] for key in ("mask", "attention_bias") if key in given}
    if "past" in given:
        heads["past_key"], heads["past_value"] = given["past"]
    if name == "ends and starts":
        ends, starts = given["mask"].reshape(2, 2, 1)
        heads["mask"] = ((np.arange(5) < ends) & (np.arange(5) >= starts)).astype(np.int32)
    result, *cache = multi_head(heads, 3, **options)
    want = [result, np.stack(cache)] if "past" in given else [result]
    for found in (
        results(kiln.load(kiln.compile(path, verify_passes=True)), given),
        results_of_onnx_runtime(path, given),
    ):
        for got, expected in zip(found, want, strict=True):
            assert_near(got, expected)


@pytest.mark.parametrize(
    ("operator", "order", "given", "options", "text"),
    [
        (
            "MultiHeadAttention", HEAD_INPUTS, rows_of(2, 5, 5, mask=np.ones((2, 4), np.int32)), {"num_heads": 3},
            "a mask for 5 keys",
        ),
        (
            "MultiHeadAttention", [*HEAD_INPUTS, "past_length"], rows_of(2, 1, 1, past_length=lengths(1)),
            {"num_heads": 3}, "expected caches that grow",
        ),
        (
            "GroupQueryAttention", QUERY_INPUTS, groups(2, 5, 8, None, **FIRST),
            {**HEADS, "k_quant_type": "PER_TENSOR"},
            "caches that are not quantised",
        ),
        (
            "GroupQueryAttention", QUERY_INPUTS, groups(2, 5, 8, None, **FIRST), {**HEADS, "sliding_window_cache": 1},
            "caches of the whole length",
        ),
        (
            "MultiHeadAttention", HEAD_INPUTS, rows_of(2, 1, 1, past_key=tensor(2, 3, 4), past_value=tensor(2, 3, 4)),
            {"num_heads": 3}, "a past of shape",
        ),
        (
            "GroupQueryAttention", QUERY_INPUTS, groups(2, 5, 8, None, **FIRST) | {"total": tensor(1)}, HEADS,
            "expected one integer",
        ),
        (
            "RotaryEmbedding", ROTARY_INPUTS,
            {"x": tensor(2, 5, 32), "position_ids": np.array([1]), "cos": tensor(8), "sin": tensor(8)}, {},
            "a table of shape",
        ),
    ],
)  # fmt: skip
def test_attention_that_is_refused(operator, order, given, options, text, tmp_path: Path) -> None:
    path = saved(tmp_path, operator, order, given, 1, **options)
    with pytest.raises(kiln.KilnError, match=text):
        kiln.compile(path)


# --- RotaryEmbedding ---

PLACES = rng.integers(0, 24, (2, 5))
ROTARY: dict[str, tuple[Tensors, Tensors]] = {
    "of a first place": ({"x": tensor(2, 5, 32), "position_ids": np.array([7]), **tables(16)}, {}),
    "of places": ({"x": tensor(2, 5, 32), "position_ids": PLACES, **tables(16)}, {}),
    "of neighbours": (
        {"x": tensor(2, 5, 32), "position_ids": PLACES, **tables(16)},
        {"interleaved": 1, "num_heads": 2},
    ),
    "with heads": ({"x": tensor(2, 3, 5, 16), "position_ids": PLACES, **tables(16)}, {}),
    "of a part": (
        {"x": tensor(2, 5, 32), "position_ids": PLACES, **tables(16, 4)},
        {"rotary_embedding_dim": 8, "num_heads": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ROTARY)
def test_rotation(name: str, dtype: str, tmp_path: Path) -> None:
    given, options = ROTARY[name]
    given = {key: x if key == "position_ids" else x.astype(dtype) for key, x in given.items()}
    path = saved(tmp_path, "RotaryEmbedding", ROTARY_INPUTS, given, 1, **options)
    x, places = given["x"].astype(np.float64), given["position_ids"]
    rows = x.swapaxes(1, 2) if x.ndim == 4 else x.reshape(2, 5, 2, 16)
    want = np.empty_like(rows)
    for b, i, head in np.ndindex(rows.shape[:3]):
        place = places[b, i] if places.ndim == 2 else places[0] + i
        want[b, i, head] = rotated(
            rows[b, i, head], given["cos"][place], given["sin"][place], "interleaved" in options
        )
    want = want.swapaxes(1, 2) if x.ndim == 4 else want.reshape(x.shape)
    assert_near(results(kiln.load(kiln.compile(path, verify_passes=True)), given)[0], want)
    assert_near(results_of_onnx_runtime(path, given)[0], want)
