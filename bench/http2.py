"""The HTTP/2 load: h2load, from nghttp2, one thread, in the clear by prior knowledge or over TLS.

It measures a time of its own, begins no request behind its end, and says what became of each. The
check is one request by curl, since http.client speaks no HTTP/2.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.load import PATIENCE, Address, Meter, Report, VoidError

_FINISHED = re.compile(r"finished in ([0-9.]+)(us|ms|s|m),")
_REQUESTS = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, "
    r"(\d+) failed, (\d+) errored, (\d+) timeout"
)
_TRAFFIC = re.compile(r"\((\d+)\) total, .* \((\d+)\) headers .*, .* \((\d+)\) data")
_PROTOCOL = re.compile(r"Application protocol: (\S+)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class H2load:
    """h2load with `streams` requests at once on each of its connections; `body` bytes go up.

    A good answer is 200, holds `expect` and has at least `length` bytes of body.
    """

    connections: int
    streams: int
    expect: bytes
    length: int
    body: int = 0

    def check(self, address: Address) -> str:
        """One request looked at closely; returns the protocol that was agreed on."""
        with tempfile.TemporaryDirectory() as folder:
            answer, upload = Path(folder) / "answer", Path(folder) / "upload"
            command = ["curl", "-sS", "-k", "-o", str(answer), "-m", str(PATIENCE)]
            command += ["-w", "%{http_version} %{http_code}"]
            command += ["--http2" if address.tls else "--http2-prior-knowledge"]
            if self.body:
                upload.write_bytes(bytes(self.body))
                command += ["--data-binary", f"@{upload}"]
            done = subprocess.run(
                [*command, address.url], capture_output=True, text=True, check=False
            )
            body = answer.read_bytes() if answer.exists() else b""
        if done.returncode:
            raise VoidError(f"curl: {done.stderr.strip()}")
        version, status = done.stdout.split()
        if version != "2":
            raise VoidError(f"speaks HTTP/{version}, and the row is about HTTP/2")
        if status != "200":
            raise VoidError(f"answered {status}")
        if self.expect not in body or len(body) < self.length:
            raise VoidError(f"answered {len(body)} bytes, not the expected ones: {body[:60]!r}")
        return "HTTP/2 over TLS" if address.tls else "HTTP/2 in the clear"

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round, its connections' opening and closing included."""
        command = ["h2load", "-t1", f"-c{self.connections}", f"-m{self.streams}"]
        command += ["-D", f"{round(seconds * 1000)}ms"]
        with tempfile.NamedTemporaryFile() as upload:
            if self.body:
                upload.write(bytes(self.body))
                upload.flush()
                command += ["-d", upload.name]
            with meter:
                done = subprocess.run(
                    [*command, address.url],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=seconds + PATIENCE + 20,
                )
        return read_report(done.stdout, self.length, "h2" if address.tls else "h2c")


def read_report(output: str, length: int, protocol: str) -> Report:
    """h2load's output -> a report; VoidError if anything at all went wrong in it."""
    finished, requests = _FINISHED.search(output), _REQUESTS.search(output)
    traffic, spoken = _TRAFFIC.search(output), _PROTOCOL.search(output)
    if finished is None or requests is None or traffic is None:
        raise VoidError(f"h2load gave no report: {output.strip()[-300:]}")
    if spoken is None or spoken[1] != protocol:
        raise VoidError(f"spoke {spoken[1] if spoken else 'nothing'} and not {protocol}")
    _, _, done, succeeded, failed, errored, late = map(int, requests.groups())
    wrong = {"failed": failed, "errored": errored, "timed out": late, "not 2xx": done - succeeded}
    reasons = [f"{count:,} {what}" for what, count in wrong.items() if count]
    if reasons:
        raise VoidError(f"{', '.join(reasons)} beside {succeeded:,} answers")
    if not succeeded:
        raise VoidError("no answer in a whole round")
    if int(traffic[3]) < succeeded * length:
        raise VoidError(f"{succeeded:,} answers held only {int(traffic[3]):,} bytes")
    extra = {"wire_bytes": int(traffic[1]) / succeeded, "head_bytes": int(traffic[2]) / succeeded}
    return Report(succeeded, float(finished[1]) * _UNITS[finished[2]], extra=extra)
