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
from torch_tensorrt.formats.aoti import compilations
from torch_tensorrt.formats.aoti.compile import faster_options

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch) -> None:
    monkeypatch.setattr(compilations, "_kept", compilations._KeptObjects())


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
    kept = compilations._KeptObjects()
    half = bytes(compilations._MAX_KEPT_BYTES // 2)
    for key in (b"a", b"b"):
        kept.put(key, half)
    assert kept.get(b"a") == half
    kept.put(b"c", half)
    assert kept.get(b"b") is None
    assert kept.get(b"a") == half
    kept.put(b"d", bytes(compilations._MAX_KEPT_BYTES + 1))
    assert kept.get(b"d") is None


def test_options_that_a_version_does_not_have_are_left_out() -> None:
    """AOTInductor refuses a name that it does not know."""
    assert faster_options(SimpleNamespace()) == {}
    some = faster_options(SimpleNamespace(precompile_headers=True, other=1))
    assert some == {"aot_inductor.precompile_headers": False}
