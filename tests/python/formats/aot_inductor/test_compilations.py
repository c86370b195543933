"""How often a C++ compiler is called for what lies outside engines, and when."""

from __future__ import annotations

import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import torch_tensorrt
from torch_tensorrt.formats.aoti import compilations, objects
from torch_tensorrt.formats.aoti.compile import faster_options

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(compilations, "_kept", objects.ObjectsInMemory())
    monkeypatch.setattr(compilations, "ObjectsInFolder", lambda: kept_in(tmp_path))


def kept_in(folder: Path) -> objects.ObjectsInFolder:
    return objects.ObjectsInFolder(folder / "objects")


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def compiler(tmp_path, log) -> str:
    """g++ that writes its commands to `log`."""
    path = tmp_path / "compiler" / "g++"
    return str(script(path, f'echo "$@" >> {shlex.quote(str(log))}\nexec g++ "$@"'))


class Picks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).flatten()
        return y[y > 0] * 2


def save(model: torch.nn.Module, path: Path, compiler: str) -> None:
    program = torch.export.export(model.eval(), (torch.randn(3, 4),))
    options = {"output_format": "aot_inductor", "inductor_configs": {"cpp.cxx": compiler}}
    torch_tensorrt.save(program, path, **options)


def compiled_sources(log: Path) -> list[str]:
    words = [line.split() for line in log.read_text().splitlines()]
    return [word for line in words if "-c" in line for word in line if word.endswith(".cpp")]


def test_a_program_with_other_weights_is_not_compiled_again(
    tmp_path, compiler, log, assert_same
) -> None:
    models = [Picks(), Picks()]
    for index, model in enumerate(models):
        save(model, tmp_path / f"{index}.pt2", compiler)
    sources = compiled_sources(log)
    assert len([name for name in sources if "wrapper" in name]) == 1, sources
    x = torch.randn(3, 4)
    for index, model in enumerate(models):
        assert_same(torch_tensorrt.load(tmp_path / f"{index}.pt2")(x), model(x))


def test_what_does_not_compile_ends_the_save(tmp_path) -> None:
    failing = script(
        tmp_path / "compiler" / "g++",
        'case "$*" in *.cpp*" -c "*) echo "no space left"; exit 1 ;; esac\nexec g++ "$@"',
    )
    with pytest.raises(Exception, match="no space left"):
        save(Picks(), tmp_path / "m.pt2", str(failing))
    assert not (tmp_path / "m.pt2").exists()


def compile_words(compiler: str, source: Path) -> list[str]:
    return [compiler, str(source), "-O1", "-c", "-o", str(source.with_suffix(".o"))]


def test_files_are_compiled_at_the_same_time(tmp_path) -> None:
    """Each call of this compiler waits for the other."""
    waiting = script(
        tmp_path / "compiler" / "g++",
        'touch "$1.began"\nfor i in $(seq 300); do\n'
        f"  [ $(ls {shlex.quote(str(tmp_path))} | grep -c began) = 2 ] && exec touch $5\n  sleep 0.1\n"
        'done\necho "alone"; exit 1',
    )
    with ThreadPoolExecutor(2) as pool:
        running = compilations._Compilations(pool)
        for name in ("wrapper", "kernel"):
            source = tmp_path / f"{name}.cpp"
            source.write_text(f"int {name};")
            words = compile_words(str(waiting), source)
            assert running.start([words[0], *words[1:3], "-c", "-o", words[-1]])
        assert not running.start([str(waiting), "-shared", "wrapper.o", "-o", "model.so"])
        running.wait([str(tmp_path / "wrapper.o"), str(tmp_path / "kernel.o")])


@pytest.mark.parametrize(
    "first, second, is_same",
    [
        ("int f();\n  // of node a\nint g();\n", "int f();\n  // of node b\nint g();\n", True),
        ("int f();\n", "int f();\n\n// g++ -c a.cpp\n// g++ -shared a.o\n", True),
        ("int f();\n", "int g();\n", False),
        ("int f();\n// a\n", "int f();\nint g();\n", False),
        ("// a \\\nint f();\n", "// a\nint f();\n", False),
        ('auto s = R"(\n// a\n)";', 'auto s = R"(\n// b\n)";', False),
        ('auto s = R"(a)";\n// a', 'auto s = R"(a)";\n// b', True),
    ],
)
def test_sources_that_differ_in_comments_alone_are_the_same(
    tmp_path, first, second, is_same
) -> None:
    keys = []
    for name, text in (("a", first), ("b", second)):
        source = tmp_path / f"{name}.cpp"
        source.write_text(text)
        words = compile_words("g++", source)
        keys.append(compilations._key(words, source, source.with_suffix(".o")))
    assert (keys[0] is not None and keys[0] == keys[1]) == is_same


def test_options_make_another_object(tmp_path) -> None:
    source = tmp_path / "a.cpp"
    source.write_text("int f();")
    words = compile_words("g++", source)
    target = source.with_suffix(".o")
    assert compilations._key(words, source, target) != compilations._key(
        ["-O3" if word == "-O1" else word for word in words], source, target
    )


def test_objects_are_kept_up_to_a_number_of_bytes() -> None:
    kept = objects.ObjectsInMemory()
    half = bytes(objects.MAX_BYTES_IN_MEMORY // 2)
    for key in (b"a", b"b"):
        kept.put(key, half)
    assert kept.get(b"a") == half
    kept.put(b"c", half)
    assert kept.get(b"b") is None
    assert kept.get(b"a") == half
    kept.put(b"d", bytes(objects.MAX_BYTES_IN_MEMORY + 1))
    assert kept.get(b"d") is None


@pytest.mark.parametrize("allowed", [True, False])
def test_another_process_does_not_compile_again_unless_caches_are_forbidden(
    tmp_path, compiler, log, assert_same, monkeypatch, allowed
) -> None:
    from torch._inductor import config

    model, x = Picks(), torch.randn(3, 4)
    for name in ("first", "second"):
        monkeypatch.setattr(compilations, "_kept", objects.ObjectsInMemory())
        with config.patch(force_disable_caches=not allowed):
            save(model, tmp_path / f"{name}.pt2", compiler)
        assert_same(torch_tensorrt.load(tmp_path / f"{name}.pt2")(x), model(x))
    wrappers = [name for name in compiled_sources(log) if "wrapper" in name]
    assert len(wrappers) == (1 if allowed else 2), wrappers


@pytest.fixture
def header(tmp_path) -> Path:
    path = tmp_path / "a header.h"
    path.write_text("int f();")
    return path


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "objects").glob("*.object"))


def test_an_object_is_used_while_what_it_was_made_of_stays(tmp_path, header) -> None:
    kept = kept_in(tmp_path)
    kept.put(b"key", "g++", [str(header)], b"object")
    assert kept.get(b"key", "g++") == b"object"
    assert kept.get(b"other", "g++") is None
    assert kept.get(b"key", "sh") is None
    header.write_text("long f();")
    assert kept.get(b"key", "g++") is None
    assert not entries(tmp_path)


@pytest.mark.parametrize("at", range(0, 120, 7))
def test_damaged_objects_are_not_used(tmp_path, header, at) -> None:
    kept = kept_in(tmp_path)
    kept.put(b"key", "g++", [str(header)], b"object" * 100)
    (path,) = entries(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1 - at * len(content) // 120] ^= 0x11
    path.write_bytes(content)
    assert kept.get(b"key", "g++") is None
    path.write_bytes(content[: len(content) - at - 1])
    assert kept.get(b"key", "g++") is None


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, header) -> None:
    kept = kept_in(tmp_path)
    kept.put(b"key", "g++", [str(header)], b"object")
    folder = tmp_path / "objects"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o722)
    assert kept.get(b"key", "g++") is None
    kept.put(b"second", "g++", [str(header)], b"object")
    assert len(entries(tmp_path)) == 1
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o700)
    assert kept.get(b"key", "g++") is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, header) -> None:
    (tmp_path / "objects").write_text("a file")
    kept_in(tmp_path).put(b"key", "g++", [str(header)], b"object")
    assert kept_in(tmp_path).get(b"key", "g++") is None


def test_the_folder_loses_what_was_not_used_for_longest(tmp_path, header, monkeypatch) -> None:
    kept = kept_in(tmp_path)
    monkeypatch.setattr(objects, "MAX_BYTES_IN_FOLDER", 3000)
    for key in (b"a", b"b", b"c"):
        kept.put(key, "g++", [str(header)], bytes(1000))
        kept.get(b"a", "g++")
    assert kept.get(b"a", "g++") and kept.get(b"c", "g++")
    assert kept.get(b"b", "g++") is None


def test_names_in_rules_of_make() -> None:
    rule = "a\\ b.o: a.cpp \\\n /usr/include/x.h \\\n  /home/a\\ b/c$$d\\#.h\n"
    assert objects.prerequisites(rule) == ["a.cpp", "/usr/include/x.h", "/home/a b/c$d#.h"]


def test_options_that_a_version_does_not_have_are_left_out() -> None:
    """AOTInductor refuses a name that it does not know."""
    assert faster_options(SimpleNamespace()) == {}
    some = faster_options(SimpleNamespace(precompile_headers=True, other=1))
    assert some == {"aot_inductor.precompile_headers": False}
