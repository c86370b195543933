"""Files that `save` writes: what they replace, what they keep, and what is left when a process is killed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from models_small import Mlp, compile_all

import torch_tensorrt
from torch_tensorrt._files import replaced_file, replaced_path

FORMATS = {"exported_program": "ep", "torchscript": "ts", "aot_inductor": "pt2"}
X = torch.arange(32.0).reshape(2, 16)


@pytest.fixture(scope="module")
def compiled() -> torch.fx.GraphModule:
    return compile_all(Mlp().eval(), X)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def write_file(path: object, data: bytes = b"new") -> None:
    with replaced_file(path) as file:
        file.write(data)


def write_path(path: object, data: bytes = b"new") -> None:
    with replaced_path(path) as temporary:
        temporary.write_bytes(data)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


both = pytest.mark.parametrize("write", [write_file, write_path])


@both
def test_a_new_file_has_the_permissions_of_the_umask(write, tmp_path, umask) -> None:
    write(tmp_path / "model")
    assert mode_of(tmp_path / "model") == 0o640
    assert os.listdir(tmp_path) == ["model"]


@both
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755])
def test_permissions_and_owner_are_kept(write, mode, tmp_path, umask) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    write(path)
    after = path.stat()
    assert path.read_bytes() == b"new"
    assert mode_of(path) == mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_a_private_file_is_never_readable_by_others(tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with replaced_file(path):
        assert [mode_of(each) for each in tmp_path.iterdir()] == [0o600, 0o600]


def test_the_umask_of_the_process_stays(tmp_path, monkeypatch) -> None:
    """It belongs to all threads: it must not change, not even for a moment."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"umask({mask:o}) was called"))
    for write in (write_file, write_path):
        write(tmp_path / "model")
        write(tmp_path / "model")


@both
def test_links_stay_and_what_they_point_to_is_replaced(write, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "model"
    target.write_bytes(b"old")
    target.chmod(0o600)
    first, second = tmp_path / "first", tmp_path / "second"
    first.symlink_to("folder/model")
    second.symlink_to(first)
    write(second)
    assert second.is_symlink() and first.is_symlink() and not target.is_symlink()
    assert target.read_bytes() == b"new" and mode_of(target) == 0o600
    assert os.listdir(tmp_path / "folder") == ["model"]


@both
def test_links_to_nothing(write, tmp_path) -> None:
    (tmp_path / "link").symlink_to("model")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "model").read_bytes() == b"new"
    (tmp_path / "lost").symlink_to("no/such/folder")
    with pytest.raises(FileNotFoundError, match="lost"):
        write(tmp_path / "lost")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "loop")
    assert sorted(os.listdir(tmp_path)) == ["link", "loop", "lost", "model"]


@both
def test_devices_pipes_and_sockets_are_refused(write, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        refused = {"pipe": "a named pipe", "link": "a named pipe", "socket": "a socket"}
        for name, kind in refused.items():
            with pytest.raises(ValueError, match=f"{name} is {kind}, expected a regular file"):
                write(tmp_path / name)
    with pytest.raises(ValueError, match="/dev/null is a device"):
        write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@both
def test_folders_are_refused(write, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "link", "folder/", "new/", "."):
        with pytest.raises(IsADirectoryError):
            write(f"{tmp_path}/{name}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write(tmp_path / "nowhere" / "model")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file/model"):
        write(tmp_path / "file" / "model")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]


@both
@pytest.mark.parametrize("length", [1, 200, 251, 252, 253, 254, 255])
def test_long_names(write, length, tmp_path) -> None:
    write(tmp_path / ("m" * length))
    write(tmp_path / ("m" * length), b"again")
    assert (tmp_path / ("m" * length)).read_bytes() == b"again"


@both
def test_names_that_are_too_long(write, tmp_path) -> None:
    for name in ("m" * 256, "ü" * 128):
        with pytest.raises(OSError, match="name too long"):
            write(tmp_path / name)
    write(tmp_path / ("ü" * 127))
    assert os.listdir(tmp_path) == ["ü" * 127]


@both
def test_paths_of_every_type(write, tmp_path) -> None:
    folder = os.fsencode(tmp_path)
    for path in (
        folder + b"/bytes",
        folder + b"/\xff\xfe",
        tmp_path / "日本 語",
        f"{tmp_path}/str",
    ):
        write(path)
        with open(path, "rb") as file:
            assert file.read() == b"new"
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        write("relative")
    finally:
        os.chdir(before)
    assert (tmp_path / "relative").read_bytes() == b"new"


@both
def test_an_error_leaves_the_old_file(write, tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")

    class Interrupted(BaseException):
        pass

    context = replaced_file if write is write_file else replaced_path
    with pytest.raises(Interrupted), context(path):
        raise Interrupted
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


def as_nobody(code: str) -> str:
    """Runs code in another process that is not the superuser's."""
    start = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    return run_python((start if os.geteuid() == 0 else "") + code)


def run_python(code: str) -> str:
    # The module alone: no torch, which takes long to import.
    root = Path(torch_tensorrt.__file__).parent
    code = f"import sys\nsys.path.insert(0, {str(root)!r})\nfrom _files import *\n{code}"
    done = subprocess.run(
        [sys.executable, "-Ic", code], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user can reach."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_folders_and_files_that_may_not_be_written(open_folder) -> None:
    path = open_folder / "model"
    path.write_bytes(b"old")
    path.chmod(0o444)
    code = f"with replaced_file({str(path)!r}) as file: file.write(b'new')"
    assert f"PermissionError: [Errno 13] Permission denied: '{path}'" in as_nobody(code)
    path.chmod(0o666)
    open_folder.chmod(0o555)
    assert f"PermissionError: [Errno 13] Permission denied: '{path}'" in as_nobody(code)
    assert path.read_bytes() == b"old"
    assert os.listdir(open_folder) == ["model"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of another user")
def test_a_file_of_another_user(open_folder) -> None:
    """Its owner cannot be kept; nobody gets more rights than they had."""
    path = open_folder / "model"
    path.write_bytes(b"old")
    path.chmod(0o4776)
    assert as_nobody(f"with replaced_file({str(path)!r}) as file: file.write(b'new')") == ""
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o706


@pytest.mark.parametrize("write", ["file.write(bytes(1 << 20))", "file.write(b'x' * 70000)"])
def test_a_full_disk(write, tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    code += f"with replaced_file({str(path)!r}) as file: {write}"
    assert f"[Errno 27] File too large: '{path}'" in run_python(code).splitlines()[-1]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("kind", ["replaced_file", "replaced_path"])
def test_what_a_killed_process_left_is_removed(kind, tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    code = f"import os, signal\nwith {kind}({str(path)!r}) as it:\n"
    code += "  open(it, 'w').write('half') if hasattr(it, 'joinpath') else it.write(b'half')\n"
    code += "  os.kill(os.getpid(), signal.SIGKILL)"
    for _ in range(2):
        run_python(code)
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # the second has removed what the first left
    write_file(tmp_path / "other")
    assert len(os.listdir(tmp_path)) == 3  # another target's is not touched
    write_path(path)
    assert sorted(os.listdir(tmp_path)) == ["model", "other"]


def test_files_of_others_are_left_alone(tmp_path) -> None:
    """Names that are nearly those of temporary files, and temporary files in use."""
    with replaced_file(tmp_path / "model") as file:
        in_use = os.listdir(tmp_path)[0]
        file.write(b"first")
        (tmp_path / f"{in_use}0").touch()
        (tmp_path / in_use[:-1]).touch()
        (tmp_path / f"{in_use[:-16]}{'0' * 16}").symlink_to("nothing")
        write_file(tmp_path / "model", b"second")
        assert len(os.listdir(tmp_path)) == 5
    assert (tmp_path / "model").read_bytes() == b"first"
    assert len(os.listdir(tmp_path)) == 4


def test_killed_at_any_moment(tmp_path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"\0" * 100_000)
    code = "import sys\nn = 0\nprint('ready', flush=True)\nwhile True:\n  n += 1\n"
    code += f"  with replaced_file({str(path)!r}) as file: file.write(bytes([n % 256]) * 100_000)"
    root = Path(torch_tensorrt.__file__).parent
    source = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom _files import *\n{code}"
    for round_ in range(12):
        writers = [
            subprocess.Popen([sys.executable, "-Ic", source], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.005 * round_)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        data = path.read_bytes()
        assert len(data) == 100_000 and len(set(data)) == 1
    write_file(path)
    assert os.listdir(tmp_path) == ["model"]


@both
def test_many_threads_at_one_target(write, tmp_path) -> None:
    path, errors = tmp_path / "model", []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                write(path, bytes([number]) * 10_000)
                data = path.read_bytes()
                assert len(data) == 10_000 and len(set(data)) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("output_format", FORMATS)
def test_save_keeps_links_and_permissions(output_format, compiled, tmp_path, assert_same) -> None:
    ending = FORMATS[output_format]
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link = tmp_path / f"link.{ending}"
    link.symlink_to(path.name)
    torch_tensorrt.save(
        compiled, os.fsencode(link), output_format=output_format, retrace=False, arg_inputs=[X]
    )
    assert link.is_symlink() and mode_of(path) == 0o600
    assert sorted(os.listdir(tmp_path)) == sorted([link.name, path.name])
    assert_same(torch_tensorrt.load(os.fsencode(link))(X), compiled(X))


@pytest.mark.parametrize("output_format", FORMATS)
def test_save_refuses_what_is_no_file(output_format, compiled, tmp_path) -> None:
    ending = FORMATS[output_format]
    pipe, folder = tmp_path / f"pipe.{ending}", tmp_path / f"folder.{ending}"
    os.mkfifo(pipe)
    folder.mkdir()
    options = {"output_format": output_format, "retrace": False, "arg_inputs": [X]}
    with pytest.raises(ValueError, match="is a named pipe"):
        torch_tensorrt.save(compiled, pipe, **options)
    with pytest.raises(IsADirectoryError):
        torch_tensorrt.save(compiled, folder, **options)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(folder.iterdir()) == []
    long = tmp_path / ("m" * (255 - len(ending) - 1) + "." + ending)
    torch_tensorrt.save(compiled, long, **options)
    torch_tensorrt.load(long)(X)
    with pytest.raises(OSError, match="name too long"):
        torch_tensorrt.save(compiled, tmp_path / f"m{long.name}", **options)


@pytest.mark.parametrize("output_format", FORMATS)
def test_save_to_a_full_disk(output_format, compiled, tmp_path) -> None:
    """In a process of its own, because the limit is the process's."""
    path = tmp_path / f"model.{FORMATS[output_format]}"
    path.write_bytes(b"old")
    pid = os.fork()
    if pid == 0:  # nothing but this may run here
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        code = 9
        try:
            torch_tensorrt.save(
                compiled, path, output_format=output_format, retrace=False, arg_inputs=[X]
            )
        except (OSError, RuntimeError):
            code = 3
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
