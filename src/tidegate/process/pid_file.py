"""The file that names the server's process, for those who send it signals.

It appears whole: written beside its place, then renamed, so that nobody reads half a number. It is
removed only by the process it names: not by a forked child, nor by a server that has handed over.
"""

from __future__ import annotations

import errno
import os
import stat

from tidegate.errors import ConfigurationError

_LONGEST = 64  # bytes that are read: more than a number has


class PidFile:
    """`write` at the start, `remove` at the end."""

    def __init__(self, path: str) -> None:
        # A link is replaced, not followed: its maker must not choose what we write to.
        self.path = os.path.abspath(path)

    def write(self, *, taking_over: bool = False) -> None:
        """Name this process. A living one that is named already is an error.

        With `taking_over` it may be our parent: the old server, which has started us.
        """
        try:
            pid = self._read()
            if pid and _alive(pid) and not (taking_over and pid == os.getppid()):
                raise ConfigurationError(
                    f"Cannot write the pid file {self.path}: it names process {pid}, "
                    "which is running.",
                    f"Is it a server? Stop it (kill -TERM {pid}), or choose another pid file. "
                    "If it is something else, remove the file.",
                )
            self._replace()
        except OSError as error:
            raise self._explain(error) from error

    def remove(self) -> None:
        """Remove the file if it still names this process.

        What cannot be removed is left: nobody heeds a file that names a dead process.
        """
        try:
            if self._read() == os.getpid():
                os.unlink(self.path)
        except OSError:
            pass

    def _read(self) -> int:
        """The process that is named; 0 where there is no file, or no number in it."""
        try:
            mode = os.lstat(self.path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                # As root, /dev/null for a pid file must not be replaced by one.
                raise OSError(errno.EINVAL, "it is there, and is not a file")
            # a link may lead to a pipe, which would be waited for
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return 0
        try:
            text = os.read(descriptor, _LONGEST).strip()
        finally:
            os.close(descriptor)
        return int(text) if text.isdigit() else 0

    def _replace(self) -> None:
        folder, name = os.path.split(self.path)
        # The name cannot be guessed, and must be new: in a folder open to all nobody can be there
        # first.
        draft = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                os.fchmod(descriptor, 0o644)  # whatever the umask says
                os.write(descriptor, b"%d\n" % os.getpid())
            finally:
                os.close(descriptor)
            os.replace(draft, self.path)
        except BaseException:
            os.unlink(draft)
            raise

    def _explain(self, error: OSError) -> ConfigurationError:
        where = f"Cannot write the pid file {self.path}: "
        folder = os.path.dirname(self.path)
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return ConfigurationError(
                f"{where}there is no folder {folder}.",
                f"Make it (mkdir -p {folder}; RuntimeDirectory= in a systemd unit), "
                "or choose another pid file.",
            )
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return ConfigurationError(
                f"{where}{(error.strerror or str(error)).lower()}.",
                f"This user has to be able to write in {folder}. Change its rights, "
                "or choose a pid file in another folder.",
            )
        return ConfigurationError(
            f"{where}{error.strerror or error}.", "Choose another place for the pid file."
        )


def _alive(pid: int) -> bool:
    """Whether another process has this number."""
    if pid == os.getpid() or os.name != "posix":  # elsewhere os.kill ends it, whatever the signal
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # gone, or larger than any pid
        return False
    except PermissionError:
        return True  # somebody else's
    return True
