"""What the `kiln` command does to files: verifying them, replacing them, and running out of memory on the way."""

from __future__ import annotations

import os
import random
import re
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models_small import Mlp

import kiln
import torch_tensorrt

KILN = Path(__file__).parents[3] / "python" / "kiln" / "bin" / "kiln"


def command(*arguments, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit_memory() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return subprocess.run(
        [str(KILN), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit_memory,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = Mlp().eval()
    x = torch.randn(4, 16)
    torch.export.save(torch.export.export(model, (x,)), folder / "model.pt2")
    kiln.compile(folder / "model.pt2", output=folder / "model.kiln")
    compiled = torch_tensorrt.compile(model, ir="dynamo", arg_inputs=[x], min_block_size=1)
    torch_tensorrt.save(compiled, str(folder / "model.ep"), arg_inputs=[x])
    for name, output_format in (("model.ts", "torchscript"), ("packed.pt2", "aot_inductor")):
        path = str(folder / name)
        torch_tensorrt.save(compiled, path, output_format=output_format, arg_inputs=[x])
    np.save(folder / "x.npy", x.numpy())
    return folder


def flipped(path: Path, at: int, to: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << at % 8
    to.write_bytes(content)
    return to


def test_verify_says_that_sound_files_are_sound(folder):
    for name in ("model.kiln", "model.ep", "model.ts", "packed.pt2"):
        done = command("verify", folder / name)
        assert done.returncode == 0, done.stderr
        assert "sound, 1 engine" in done.stdout
        assert kiln.verify(folder / name) == []


def test_verify_finds_every_damage_of_an_engine(folder):
    sound = (folder / "model.kiln").read_bytes()
    places = random.Random(0).sample(range(len(sound)), 400)
    for at in places:
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        found = kiln.verify(bytes(damaged))
        assert any(d.offset <= at < d.offset + d.size for d in found), (at, found)
    for size in random.Random(1).sample(range(1, len(sound)), 200):
        assert kiln.verify(sound[:size]), size


def test_verify_finds_damaged_engines_and_entries_in_containers(folder, tmp_path):
    engine = kiln.load(folder / "model.kiln").describe()
    magic = b"KILNENG\0"
    for name in ("model.ep", "model.ts", "packed.pt2"):
        content = (folder / name).read_bytes()
        start = content.index(magic)
        size = max(section["offset"] + section["size"] for section in engine["sections"])
        for at in random.Random(2).sample(range(size), 60):
            found = kiln.verify(flipped(folder / name, start + at, tmp_path / "damaged"))
            assert any(d.offset <= start + at < d.offset + d.size for d in found), (name, at)


def test_verify_names_section_constant_and_place(folder, tmp_path):
    sections = kiln.load(folder / "model.kiln").describe()["sections"]
    weights = next(section for section in sections if section["name"] == "weights")
    path = flipped(folder / "model.kiln", weights["offset"] + 5, tmp_path / "damaged.kiln")
    done = command("verify", path)
    assert done.returncode == 1
    assert f"weights: bytes {weights['offset']} to " in done.stdout
    assert "constant" in done.stdout and "of the kernel" in done.stdout
    assert done.stderr == f"kiln: {path} is damaged\n"


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no archive", b"KILNENG"])
def test_verify_of_something_else_fails(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert command("verify", path).returncode == 1
    assert command("verify", tmp_path / "missing").returncode == 1
    assert command("verify").returncode == 2


def test_run_and_bench_check_the_weights(folder, tmp_path):
    sections = kiln.load(folder / "model.kiln").describe()["sections"]
    weights = next(section for section in sections if section["name"] == "weights")
    path = flipped(folder / "model.kiln", weights["offset"] + 5, tmp_path / "damaged.kiln")
    for arguments in (["run", path, "--random"], ["bench", path, "--runs", 2]):
        done = command(*arguments)
        assert done.returncode == 1
        assert "the weights does not match its hash" in done.stderr
        assert command(*arguments, "--no-verify").returncode == 0
    kiln.load(path)  # a program asks for it
    with pytest.raises(kiln.InvalidEngineError):
        kiln.load(path, verify_weights=True)


def outputs(folder, target):
    """Every way of the command to write an engine."""
    return [
        ["compile", folder / "model.pt2", "-o", target],
        ["compile", folder / "model.pt2", "-o", target, "--cache-dir", folder / "cache"],
        ["refit", folder / "model.kiln", folder / "model.pt2", "-o", target],
    ]


def test_outputs_keep_permissions_and_links(folder, tmp_path):
    target, link = tmp_path / "target.kiln", tmp_path / "link.kiln"
    link.symlink_to("target.kiln")
    for arguments in outputs(folder, link):
        target.write_bytes(b"old")
        target.chmod(0o600)
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
        assert link.is_symlink()
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert kiln.verify(target) == []
        assert sorted(os.listdir(tmp_path)) == ["link.kiln", "target.kiln"]


def test_outputs_replace_regular_files_only(folder, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for target in (Path("/dev/null"), fifo, tmp_path):
        for arguments in outputs(folder, target):
            done = command(*arguments)
            assert done.returncode == 1
            assert done.stderr.strip() == f"kiln: cannot write {target}: not a regular file"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert stat.S_ISFIFO(os.stat(fifo).st_mode)


def test_long_names(folder, tmp_path):
    for size in (251, 252, 255):
        target = tmp_path / ("n" * size)
        assert command("compile", folder / "model.pt2", "-o", target).returncode == 0
        assert kiln.verify(target) == []
    done = command("compile", folder / "model.pt2", "-o", tmp_path / ("n" * 256))
    assert done.returncode == 1
    assert "File name too long" in done.stderr


def test_what_a_killed_command_left_is_removed(folder, tmp_path):
    target = tmp_path / "model.kiln"
    code = (
        "import resource, kiln, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"
        f"kiln.compile({str(folder / 'model.pt2')!r}, output={str(target)!r})"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode < 0
    assert [name[:10] for name in os.listdir(tmp_path)] == [".kiln-tmp-"]
    assert command("compile", folder / "model.pt2", "-o", target).returncode == 0
    assert os.listdir(tmp_path) == ["model.kiln"]


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(512, 512) for _ in range(8))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = torch.softmax(torch.relu(layer(x)) + i, -1)
        return x


@pytest.fixture(scope="module")
def wide(folder):
    torch.export.save(torch.export.export(Wide().eval(), (torch.randn(2, 512),)), folder / "w.pt2")
    kiln.compile(folder / "w.pt2", output=folder / "w.kiln")
    return folder


def test_out_of_memory_of_the_other_commands(wide):
    for arguments in (
        ["run", wide / "w.kiln", "--random", "--threads", 2],
        ["bench", wide / "w.kiln", "--runs", 2, "--threads", 2],
        ["inspect", wide / "w.kiln"],
        ["verify", wide / "w.kiln"],
        ["refit", wide / "w.kiln", wide / "w.pt2", "-o", wide / "refitted.kiln"],
        ["ops", wide / "w.pt2"],
    ):
        seen = set()
        for megabytes in range(60, 260, 4):
            done = command(*arguments, limit=megabytes << 20)
            if "error while loading shared libraries" in done.stderr:
                continue
            seen.add(done.returncode)
            assert done.returncode in (0, 1), f"{arguments} {megabytes}: {done.stderr}"
        assert 0 in seen


@pytest.mark.parametrize("threads", [1, 4])
def test_out_of_memory_of_a_compile(threads, folder, tmp_path):
    """Wherever memory ends: one line, the exit code, and no file; never a signal."""
    seen = set()
    for kilobytes in range(50 << 10, 230 << 10, 3000):
        output = tmp_path / "m.kiln"
        done = command(
            "compile",
            folder / "model.pt2",
            "-o",
            output,
            "--threads",
            threads,
            limit=kilobytes << 10,
        )
        if "error while loading shared libraries" in done.stderr:
            continue
        seen.add(done.returncode)
        assert done.returncode in (0, 1), f"{kilobytes}: {done.returncode} {done.stderr}"
        if done.returncode == 1:
            assert done.stderr.startswith("kiln: out of memory"), done.stderr
            assert done.stderr.count("\n") == 1
            assert os.listdir(tmp_path) == []
            continue
        assert output.read_bytes() == (folder / "model.kiln").read_bytes()
        output.unlink()
    assert seen == {0, 1}


COMPILE_WITH_LITTLE_MEMORY = """
import resource, sys, kiln
model = kiln.Model.open(sys.argv[1])
expected = bytes(kiln.compile(model))
def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
failed = done = 0
for kilobytes in range(0, 24000, 400):
    resource.setrlimit(resource.RLIMIT_AS, (size() + (kilobytes << 10), resource.RLIM_INFINITY))
    try:
        engine = kiln.compile(model, num_threads=2)
        done += 1
    except (kiln.KilnError, MemoryError):
        failed += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert bytes(kiln.compile(model)) == expected
print(failed > 0, done > 0)
"""


def test_a_process_compiles_again_after_it_had_no_memory(folder):
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_WITH_LITTLE_MEMORY, folder / "model.pt2"],
        # What a compile freed would serve the next one.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def test_memory_of_a_run_that_there_is_not(tmp_path):
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        Mlp().eval(), (torch.randn(3, 16),), dynamic_shapes={"x": {0: batch}}
    )
    torch.export.save(exported, tmp_path / "m.pt2")
    kiln.compile(tmp_path / "m.pt2", output=tmp_path / "m.kiln")
    for size in (2**38, 2**44, 2**60, 2**62):
        done = command("run", tmp_path / "m.kiln", "--random", "--shape", f"x={size},16")
        assert done.returncode == 1, (size, done.returncode)
        assert done.stderr.count("\n") == 1


def test_memory_of_a_compile(tmp_path):
    """Not a whole second copy of the weights: what was packed is forgotten, and read again if need be."""
    model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(3)))
    program = torch.export.export(model.eval(), (torch.randn(8, 4096),))
    torch.export.save(program, tmp_path / "model.pt2")
    arguments = ["compile", tmp_path / "model.pt2", "-o", tmp_path / "model.kiln", "--threads", "1"]
    process = subprocess.Popen([str(KILN), *map(str, arguments)], stdout=subprocess.DEVNULL)
    weights, peak = 3 * 4 * 4096 * 4096, 0
    while process.poll() is None:  # a child's ru_maxrss begins with its parent's
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            peak = max(peak, 1024 * int(found[1]))
        time.sleep(0.01)
    assert process.returncode == 0
    assert weights < peak < 2.0 * weights
