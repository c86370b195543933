"""Files that appear only when they are complete.

What is written lies beside its target under a temporary name, locked while its writer lives. What a killed process left
behind is not locked any more, and the next writer of the same target removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

Pathlike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}
# File systems that cannot say whether there is room.
_NO_RESERVATION = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# File systems without locks: nothing is removed there.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def replaced_file(path: Pathlike) -> Iterator[IO[bytes]]:
    """A new file to write to, which takes the place of `path` when the block ends without an error.

    An older file stays as it was until then; the new one has its owner and permissions. A link stays, and what it
    points to is replaced.

    Raises:
        ValueError: `path` is a device, a pipe or a socket. OSError: it is a folder, may not be written, or the system
        refuses to; an older file is as it was.
    """
    target = _Target(path)
    temporary, descriptor = target.reserve(_create_file)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            target.dress(file.fileno())
            os.fsync(file.fileno())
            os.replace(temporary, target.path)  # while it is locked
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise target.error(error) from error
        raise


class _Forgiving:
    """A file whose `write` never fails: it keeps the first error, and drops what comes after it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def errors_at_the_end(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file for PyTorch's writer of archives, which ends the process when a write fails. OSError: one has failed."""
    forgiving = _Forgiving(file)
    try:
        yield forgiving  # type: ignore[misc] - it has all that a file has
    finally:
        if forgiving.failure is not None:
            raise forgiving.failure


def write_text(path: Path, text: str) -> None:
    """Writes a file, which appears only when it is complete; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        file.write(text.encode())


@contextmanager
def replaced_path(path: Pathlike, size: int = 0) -> Iterator[Path]:
    """The same for what writes to a path and not to an open file: one with the same name, in a temporary folder.

    Where there is no room for `size` bytes, that is an OSError before anything is written.
    """
    target = _Target(path)
    folder, descriptor = target.reserve(_create_folder)
    try:
        temporary = Path(folder) / os.path.basename(target.path)
        _check_room(temporary, size)
        yield temporary
        with open(temporary, "rb+") as file:
            target.dress(file.fileno())
            os.fsync(file.fileno())
        os.replace(temporary, target.path)
    except OSError as error:
        raise target.error(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _check_room(path: Path, size: int) -> None:
    if size == 0:
        return
    try:
        with open(path, "xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _NO_RESERVATION:
            raise OSError(error.errno, error.strerror) from error
    finally:
        path.unlink(missing_ok=True)


def _create_file(path: str, private: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(path, flags, 0o600 if private else 0o666)


def _create_folder(path: str, private: bool) -> int:
    os.mkdir(path, 0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


class _Target:
    """A regular file, there or not, to be replaced."""

    def __init__(self, path: Pathlike) -> None:
        self._given = os.fsdecode(path)
        try:
            self._old: os.stat_result | None = os.stat(self._given)
        except FileNotFoundError:
            if not self._given:
                raise
            self._old = None  # or a link to what is not there
        self.path = os.path.realpath(self._given)
        self._folder, name = os.path.split(self.path)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        self._prefix = f".kiln-save-{key}-"  # short, however long the name is
        if self._old is not None:
            self._check_old(self._old)
        elif self._given.endswith("/"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._given)

    def _check_old(self, old: os.stat_result) -> None:
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._given)
        if not stat.S_ISREG(old.st_mode):
            kind = _KINDS.get(stat.S_IFMT(old.st_mode), "no file")
            raise ValueError(f"{self._given} is {kind}, expected a regular file or a new name")
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._given)

    def error(self, error: OSError) -> OSError:
        """An error that names this file, and not a temporary one."""
        named = error.filename is not None and self._prefix not in os.fsdecode(error.filename)
        if (
            named or error.errno is None
        ):  # without a number it is not the system's: it says what it is about
            return error
        return type(error)(error.errno, error.strerror, self._given)

    def reserve(self, create: Callable[[str, bool], int]) -> tuple[str, int]:
        """A new temporary file or folder in the target's folder: its path, and a descriptor that locks it."""
        try:
            self._remove_leftovers()
            while True:
                path = os.path.join(self._folder, self._prefix + secrets.token_hex(8))
                try:
                    descriptor = create(path, self._old is not None)
                except FileNotFoundError:
                    if os.path.isdir(self._folder):
                        continue  # taken for a leftover before it was locked
                    raise
                if not _lock(descriptor, wait=True) or _is_at(path, descriptor):
                    return path, descriptor
                os.close(descriptor)
        except OSError as error:  # it names the temporary file, or the folder
            raise type(error)(error.errno, error.strerror, self._given) from error

    def _remove_leftovers(self) -> None:
        pattern = re.compile(re.escape(self._prefix) + "[0-9a-f]{16}")
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if pattern.fullmatch(entry.name)]
        for name in names:
            _remove_if_left(os.path.join(self._folder, name))

    def dress(self, descriptor: int) -> None:
        """Gives a file the owner and the permissions of the old one."""
        if self._old is None:
            return
        new, mode = os.fstat(descriptor), stat.S_IMODE(self._old.st_mode)
        if (new.st_uid, new.st_gid) != (self._old.st_uid, self._old.st_gid):
            mode = _give_to(descriptor, self._old, mode)
        os.fchmod(descriptor, mode)


def _give_to(descriptor: int, old: os.stat_result, mode: int) -> int:
    """Changes the owner, as far as the system allows it, and gives the permissions that are right then."""
    for owner, group in ((old.st_uid, old.st_gid), (-1, old.st_gid)):
        try:
            os.fchown(descriptor, owner, group)
        except PermissionError:
            mode &= ~(stat.S_ISUID | stat.S_ISGID)  # they were another owner's to give
        else:
            return mode
    return mode & ~stat.S_IRWXG  # another group's


def _remove_if_left(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # gone already, a link, or somebody else's
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not _lock(descriptor, wait=False):
            return
        if not _is_at(path, descriptor):
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except OSError:
        return  # it may not be removed: not what was asked for either
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Locks until the descriptor is closed; False if another has it, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, *_NO_LOCKS):
            return False
        raise
    return True


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
