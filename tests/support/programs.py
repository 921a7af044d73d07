"""Real programs for the tests: where they are, starting and ending them, and fetching the missing.

`need("nginx")` gives a path or skips the test. `running([...])` ends what it started, by its own
process id. Run as a module, this installs the Debian packages that are missing, where apt-get is
there and we are root; where it cannot, it says so and the tests that need them are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

# program -> the Debian package that brings it
PACKAGES = {
    "curl": "curl",
    "nginx": "nginx",
    "wrk": "wrk",
    "chromium": "chromium",
    "redis-server": "redis-server",
    "h2load": "nghttp2-client",
    "nghttp": "nghttp2-client",
}

_SEARCH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
_PATIENCE = 30.0  # for a program to start or to end; a machine under load is not a failure


def find(program: str) -> str | None:
    """The path of a program, also where only root's PATH has it."""
    return shutil.which(program, path=_SEARCH)


def need(program: str) -> str:
    """The path of a program; skips the test where there is none."""
    import pytest

    path = find(program)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian package {PACKAGES[program]})")
    return path


def run(*arguments: str | Path, timeout: float = 60.0, **options: object) -> Finished:
    """Run a program to its end; its output as bytes, its exit code unchecked."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(argument) for argument in arguments],
        capture_output=True,
        timeout=timeout,
        check=False,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


# Without the user's own settings and proxies, silent but for errors.
_CURL = ("-q", "-sS", "--noproxy", "*", "--max-time", "30")


def curl(*arguments: str | Path, **options: Any) -> Finished:
    """curl, to its end."""
    return run(need("curl"), *_CURL, *arguments, **options)


def curling(*arguments: str | Path) -> contextlib.AbstractContextManager[Running]:
    """curl as long as the block lasts, for what does not end; it shows what comes as it comes."""
    return running(need("curl"), *_CURL, "--no-buffer", *arguments)


class Finished:
    """What a program left behind."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def text(self) -> str:
        return self.out.decode()

    def __repr__(self) -> str:
        return f"<exit {self.code}, out {self.out[:500]!r}, err {self.err[-2000:]!r}>"


class Running:
    """A program at work. Its output, both streams, is collected as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def expect(self, text: str, timeout: float = _PATIENCE) -> str:
        """Wait until the output holds a text; the output so far."""
        with self._news:
            self._news.wait_for(lambda: text in "".join(self._lines) or self._ended, timeout)
            output = "".join(self._lines)
        assert text in output, f"{text!r} never came. The output was:\n{output}"
        return output

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = _PATIENCE) -> int:
        """Wait for the end; the exit code (negative: the signal that killed it)."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def end(self) -> None:
        """End it: asked first, then forced."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(_PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextlib.contextmanager
def running(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A program that runs as long as the block does."""
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cwd or REPOSITORY,
        env=None if env is None else {**os.environ, **env},
    )
    program = Running(process)
    try:
        yield program
    finally:
        program.end()


_kept: deque[socket.socket] = deque(maxlen=32)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has right now.

    On Linux it is kept for whoever says SO_REUSEADDR, as servers do: they may bind and listen beside
    a socket that does not listen, and a bind to port 0 gives it to nobody else meanwhile.
    """
    probe = socket.socket()
    if sys.platform != "linux":
        with probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    if len(_kept) == _kept.maxlen:
        _kept[0].close()
    _kept.append(probe)
    return int(probe.getsockname()[1])


def wait_for_port(port: int, program: Running, timeout: float = _PATIENCE) -> None:
    """Wait until somebody accepts on the port; fails with the program's output."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on port {port}. The output was:\n{program.output}")


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name: the kernel allows 107 bytes in all."""
    with tempfile.TemporaryDirectory(prefix="tide-") as name:
        yield Path(name)


def install(missing: Sequence[str]) -> None:
    """Fetch Debian packages, quietly and without starting their services."""
    packages = sorted({PACKAGES[program] for program in missing})  # one may bring several
    print(f"installing for the tests: {' '.join(packages)}", flush=True)
    # RUNLEVEL=1 keeps invoke-rc.d from starting nginx on port 80 of this machine, or Redis.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    get = ["install", "--yes", "--no-install-recommends"]
    # One by one: a package that is not to be had must not keep the others away.
    for step in (["update"], *([*get, package] for package in packages)):
        try:
            done = subprocess.run(
                ["apt-get", "-qq", *step],
                env=quiet,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"apt-get {step[0]} {step[-1]}: gave up after 300 s", flush=True)
            continue
        if done.returncode:
            print(f"apt-get {step[0]} {step[-1]}: {done.stderr.strip()[-500:]}", flush=True)


def main() -> None:
    missing = [program for program in PACKAGES if find(program) is None]
    if missing and find("apt-get") and os.geteuid() == 0:
        install(missing)
        missing = [program for program in missing if find(program) is None]
    if missing:
        print(f"not here, so their tests are skipped: {' '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
