"""Engine caches: on disk, of the user's, damaged, shared by processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models_small import Mlp, compile_all, engines_of

import kiln
import torch_tensorrt
from torch_tensorrt.dynamo import _engine_cache as engine_cache
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache, DiskEngineCache

X = torch.ones(4, 16)


def caching(folder: Any, **options: Any) -> dict[str, Any]:
    return {
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        "engine_cache_dir": str(folder),
        **options,
    }


def engine_bytes(module: torch.fx.GraphModule) -> list[bytes]:
    return [
        bytes(getattr(module, call.args[1].target).numpy().tobytes()) for call in engines_of(module)
    ]


@pytest.fixture
def results(monkeypatch) -> list[str]:
    """What the cache did for each compile."""
    seen: list[str] = []
    compile = kiln.compile

    def watched(*args: Any, **kwargs: Any) -> Any:
        engine = compile(*args, **kwargs)
        seen.append(kwargs["cache"].result if kwargs.get("cache") else "no cache")
        return engine

    monkeypatch.setattr(kiln, "compile", watched)
    return seen


def test_second_compile_takes_the_engine_from_the_folder(mlp, tmp_path, assert_same, results):
    first = compile_all(mlp, X, **caching(tmp_path / "cache"))
    second = compile_all(mlp, X, **caching(tmp_path / "cache"))
    assert results == ["miss", "hit"]
    assert engine_bytes(first) == engine_bytes(second) == engine_bytes(compile_all(mlp, X))
    assert_same(second(X), mlp(X))
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_other_weights_are_other_engines_with_the_same_code(mlp, tmp_path, assert_same, results):
    compile_all(mlp, X, **caching(tmp_path / "cache"))
    with torch.no_grad():
        mlp.first.weight[0, 0] += 1
    changed = compile_all(mlp, X, **caching(tmp_path / "cache"))
    assert results == ["miss", "code_hit"]
    assert engine_bytes(changed) == engine_bytes(compile_all(mlp, X))
    assert_same(changed(X), mlp(X))


@pytest.mark.parametrize(
    ("build", "reuse", "expected"),
    [(True, False, ["miss", "miss"]), (False, True, ["miss", "miss"]), (False, False, [])],
)
def test_both_switches(mlp, tmp_path, results, build, reuse, expected):
    options = caching(tmp_path / "cache", cache_built_engines=build, reuse_cached_engines=reuse)
    compile_all(mlp, X, **options)
    compile_all(mlp, X, **options)
    assert results == (expected or ["no cache", "no cache"])
    assert any((tmp_path / "cache").glob("*.kiln")) == build


def test_damaged_entry_is_made_again(mlp, tmp_path, caplog, results):
    compile_all(mlp, X, **caching(tmp_path / "cache"))
    for path in (tmp_path / "cache").glob("*.kiln"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    compiled = compile_all(mlp, X, **caching(tmp_path / "cache"))
    assert engine_bytes(compiled) == engine_bytes(compile_all(mlp, X))
    assert "damaged" in caplog.text
    compile_all(mlp, X, **caching(tmp_path / "cache"))
    assert results[-1] == "hit"


def test_folder_that_others_may_write_to_gives_a_warning(mlp, tmp_path, caplog, assert_same):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    assert_same(compile_all(mlp, X, **caching(folder))(X), mlp(X))
    assert "other users may write" in caplog.text
    assert not list(folder.iterdir())


def test_size_limit(mlp, tmp_path):
    size = len(engine_bytes(compile_all(mlp, X))[0])
    options = caching(tmp_path / "cache", engine_cache_size=2 * size)
    for value in range(4):
        with torch.no_grad():
            mlp.first.weight[0, 0] = value
        compile_all(mlp, X, **options)
        total = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.*"))
        assert size <= total <= 2 * size


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x/cache", "HOME": "/home/me"}, "/x/cache/kiln/engines"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/kiln/engines"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/kiln/engines"),
        ({"HOME": "/home/me"}, "/home/me/.cache/kiln/engines"),
    ],
)
def test_default_folder_is_the_users_own(monkeypatch, environment, expected):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert engine_cache._default_folder() == expected


_DEFAULT_FOLDER = """
import logging, sys, torch
logging.basicConfig(level=logging.WARNING)
import torch_tensorrt
x = torch.ones(4, 16)
model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 4)).eval()
options = dict(cache_built_engines=True, reuse_cached_engines=True, min_block_size=1)
for _ in range(2):
    compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], **options)
torch.testing.assert_close(compiled(x), model(x))
"""


def run_with_environment(**environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", _DEFAULT_FOLDER]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_default_folder_is_made_for_the_user_alone(tmp_path):
    log = run_with_environment(HOME=str(tmp_path))
    assert "engine cache" not in log
    folder = tmp_path / ".cache" / "kiln" / "engines"
    assert list(folder.glob("*.kiln"))
    for made in (folder, folder.parent, folder.parent.parent):
        assert made.stat().st_mode & 0o777 == 0o700


def test_no_usable_home_is_one_warning_and_no_cache(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for home in (tmp_path / "file", Path("/proc/no/such/home")):
        log = run_with_environment(HOME=str(home))
        assert log.count("WARNING:torch_tensorrt.dynamo._region") == 1, log
        assert "engine cache" in log


def test_default_settings():
    settings = torch_tensorrt.dynamo.CompilationSettings()
    assert settings.engine_cache_dir == engine_cache.DEFAULT_ENGINE_CACHE_DIR
    assert settings.engine_cache_size == 5368709120
    assert not settings.cache_built_engines and not settings.reuse_cached_engines


class Remembered(BaseEngineCache):
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.loads = 0

    def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:
        self.blobs[hash] = blob

    def load(self, hash: str, *args: Any, **kwargs: Any) -> bytes | None:
        self.loads += hash in self.blobs
        return self.blobs.get(hash)


def test_custom_cache(mlp, tmp_path, assert_same, results):
    cache = Remembered()
    options = caching(tmp_path / "unused", custom_engine_cache=cache)
    first, second = compile_all(mlp, X, **options), compile_all(mlp, X, **options)
    assert results == ["no cache"]  # the second was not compiled
    assert cache.loads == 1
    assert engine_bytes(first) == engine_bytes(second) == list(cache.blobs.values())
    assert_same(second(X), mlp(X))
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("blob", [b"", b"no engine", "text"])
def test_custom_cache_that_gives_rubbish(mlp, tmp_path, caplog, assert_same, blob):
    class Rubbish(Remembered):
        def load(self, hash: str, *args: Any, **kwargs: Any) -> Any:
            return blob

    compiled = compile_all(mlp, X, **caching(tmp_path, custom_engine_cache=Rubbish()))
    assert_same(compiled(X), mlp(X))
    assert "Rubbish could not load" in caplog.text


def test_custom_cache_that_gives_a_damaged_engine(mlp, tmp_path, caplog, assert_same):
    """One byte of the machine code is enough."""

    class Damaged(Remembered):
        def load(self, hash: str, *args: Any, **kwargs: Any) -> Any:
            blob = super().load(hash, *args, **kwargs)
            if blob is None:
                return None
            damaged = bytearray(blob)
            damaged[len(damaged) // 2] ^= 1
            return bytes(damaged)

    options = caching(tmp_path, custom_engine_cache=Damaged())
    for _ in range(2):
        assert_same(compile_all(mlp, X, **options)(X), mlp(X))
    assert "Damaged could not load" in caplog.text


def test_custom_cache_that_fails(mlp, tmp_path, caplog, assert_same):
    class Failing(Remembered):
        def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:
            raise OSError("disk full")

    compiled = compile_all(mlp, X, **caching(tmp_path, custom_engine_cache=Failing()))
    assert_same(compiled(X), mlp(X))
    assert "disk full" in caplog.text


def test_disk_cache_by_hand(mlp, tmp_path):
    blob = engine_bytes(compile_all(mlp, X))[0]
    cache = DiskEngineCache(tmp_path / "cache", 1 << 20)
    assert cache.load("key") is None
    cache.save("key", blob)
    assert cache.load("key") == blob
    with pytest.raises(kiln.InvalidEngineError):
        cache.save("other", b"no engine")
    with pytest.raises(kiln.InvalidArgumentError, match="letters"):
        cache.save("../key", blob)
    with pytest.raises(ValueError, match="engine_cache_size"):
        DiskEngineCache(tmp_path, 0)


def test_disk_cache_as_custom_cache_is_the_folder(mlp, tmp_path, results):
    options = caching("unused", custom_engine_cache=DiskEngineCache(tmp_path / "cache"))
    compile_all(mlp, X, **options)
    compile_all(mlp, X, **options)
    assert results == ["miss", "hit"]


@pytest.mark.parametrize(
    "options",
    [
        {"custom_engine_cache": "folder"},
        {"engine_cache_dir": 3},
        {"engine_cache_dir": ""},
        {"engine_cache_size": 0},
        {"engine_cache_size": "1GB"},
    ],
)
def test_bad_settings(options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        torch_tensorrt.dynamo.CompilationSettings(**options)


def test_abstract_cache_names_what_is_missing():
    with pytest.raises(TypeError, match="abstract"):
        engine_cache.BaseEngineCache()  # type: ignore[abstract]


_WORKER = """
import sys
import kiln
model, folder = sys.argv[1:]
expected = kiln.compile(model, targets=["cpu:x86-64-v3"])
for _ in range(20):
    cache = kiln.EngineCache(folder)
    assert kiln.compile(model, targets=["cpu:x86-64-v3"], cache=cache) == expected
    assert not cache.problem, cache.problem
print(cache.result)
"""


def test_processes_share_a_folder(tmp_path):
    torch.export.save(torch.export.export(Mlp().eval(), (X,)), tmp_path / "model.pt2")
    command = [sys.executable, "-c", _WORKER, tmp_path / "model.pt2", tmp_path / "cache"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[0].strip() for worker in workers] == ["hit"] * 3
    assert {path.suffix for path in (tmp_path / "cache").rglob("*.*")} == {".kiln", ".code"}
