"""Files that somebody damaged, by accident or on purpose: a ValueError that says what is wrong, whatever the format."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from models_small import SortInTheMiddle, batch_input, compile_all

import torch_tensorrt
from torch_tensorrt.formats import aoti
from torch_tensorrt.runtime._modes import ENGINE_MAGIC

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("good")
    patch = pytest.MonkeyPatch()
    patch.setattr(aoti.package, "has_compiler", lambda configs: False)
    compiled = compile_all(SortInTheMiddle().eval(), batch_input())
    for ending, output_format in FORMATS.items():
        torch_tensorrt.save(compiled, folder / f"m.{ending}", output_format=output_format)
    patch.undo()
    return {ending: folder / f"m.{ending}" for ending in FORMATS}


def rewrite(source: Any, target: Any, change: Callable[[str, bytes], bytes | None]) -> int:
    """Copies an archive; entries become what `change` gives, None leaves them out. How many became something else."""
    changed = 0
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for entry in archive.infolist():
            data = archive.read(entry)
            new = change(entry.filename.partition("/")[2], data)
            changed += new != data
            if new is not None:
                copy.writestr(entry.filename, new)
    return changed


def refuses(path: Any, text: str = "") -> None:
    with pytest.raises(ValueError, match=text or path.name):
        torch_tensorrt.load(path)


# Entries that a file cannot do without.
NEEDED = {
    "ep": ["models/model.json", "data/weights/model_weights_config.json", "data/weights/weight_0"],
    "ts": ["data.pkl", "code/", "data/0"],
    "pt2": [
        "data/aotinductor/model/program.kiln.txt",
        "data/aotinductor/model/engine_0.kiln",
        "data/aotinductor/model/kiln.wrapper.so",
        "data/aotinductor/model/kiln.wrapper.json",
    ],
}
CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "noise": lambda data: bytes((byte * 7 + 3) % 256 for byte in data[:5000]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("ending", "entry"), [(ending, entry) for ending, names in NEEDED.items() for entry in names]
)
def test_damaged_entries(good, tmp_path, ending, entry, change) -> None:
    path = tmp_path / f"m.{ending}"
    changed = rewrite(
        good[ending],
        path,
        lambda name, data: CHANGES[change](data) if name.startswith(entry) else data,
    )
    assert changed
    refuses(path)


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 30, 100, 0.1, 0.5, 0.9, -1, -22, -23, -100, -1000])
@pytest.mark.parametrize("ending", FORMATS)
def test_truncated_files(good, tmp_path, ending, keep) -> None:
    data = good[ending].read_bytes()
    path = tmp_path / f"m.{ending}"
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refuses(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_directories(good, tmp_path, ending) -> None:
    """Every field of the end of the archive, and of its list of entries."""
    data = bytearray(good[ending].read_bytes())
    end = data.rfind(b"PK\x05\x06")
    (start,) = struct.unpack_from("<I", data, end + 16)
    path = tmp_path / f"m.{ending}"
    for place in (
        end + 8,
        end + 10,
        end + 12,
        end + 16,
        start,
        start + 10,
        start + 20,
        start + 24,
        start + 28,
        start + 42,
    ):
        broken = bytearray(data)
        broken[place : place + 2] = b"\xfe\xfe"
        path.write_bytes(broken)
        try:
            torch_tensorrt.load(path)  # what no reader needs may be wrong
        except ValueError as error:
            assert path.name in str(error)


def edited(edit: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return change


WRONG_JSON: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "deep": ("models/model.json", lambda data: DEEP),
    "deep inside": (
        "models/model.json",
        lambda data: data[:-1] + b', "more": ' + DEEP + b"}",
    ),
    "deep specification": (
        "models/model.json",
        edited(
            lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(
                in_spec=DEEP.decode()
            )
        ),
    ),
    "a list": ("models/model.json", lambda data: b"[]"),
    "no graph": ("models/model.json", edited(lambda m: m.pop("graph_module"))),
    "an unknown operator": (
        "models/model.json",
        lambda data: data.replace(b"kiln.execute_engine.default", b"kiln.something_else.default"),
    ),
    "deep weights": ("data/weights/model_weights_config.json", lambda data: DEEP),
    "a larger tensor": (
        "data/weights/model_weights_config.json",
        edited(
            lambda c: [
                entry["tensor_meta"].update(sizes=[{"as_int": 1 << 40}])
                for entry in c["config"].values()
            ]
        ),
    ),
    "a smaller tensor": (
        "data/weights/model_weights_config.json",
        edited(
            lambda c: [
                entry["tensor_meta"].update(sizes=[{"as_int": 100}])
                for entry in c["config"].values()
            ]
        ),
    ),
    "another record": (
        "data/weights/model_weights_config.json",
        edited(lambda c: [entry.update(path_name="weight_99") for entry in c["config"].values()]),
    ),
}


@pytest.mark.parametrize("kind", WRONG_JSON)
def test_wrong_json(good, tmp_path, kind) -> None:
    entry, change = WRONG_JSON[kind]
    path = tmp_path / "m.ep"
    assert rewrite(good["ep"], path, lambda name, data: change(data) if name == entry else data)
    refuses(path, "nested too deep" if kind == "deep" else "")


@pytest.mark.parametrize(
    "line", [b"hello\n", b"in_spec " + DEEP + b"\n", b"in_spec {}\n", b"result 99\n", b"\xff\xfe\n"]
)
def test_wrong_programs_of_packages(good, tmp_path, line) -> None:
    path = tmp_path / "m.pt2"
    assert rewrite(
        good["pt2"],
        path,
        lambda name, data: data + line if name.endswith("program.kiln.txt") else data,
    )
    refuses(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_engines_inside(good, tmp_path, ending) -> None:
    """The head of an engine is looked at when its file is loaded."""
    path = tmp_path / f"m.{ending}"

    def damage(name: str, content: bytes) -> bytes:
        is_engine = content.startswith(ENGINE_MAGIC)
        return content[:40] + b"\x55" * 60 + content[100:] if is_engine else content

    assert rewrite(good[ending], path, damage) == 2
    refuses(path)
