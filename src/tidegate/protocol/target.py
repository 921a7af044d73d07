"""What a request asks for, and what is told where it cannot be had: the same in every version."""

from __future__ import annotations

from tidegate.protocol.engine import Limits

LONGEST_METHOD = 32  # the registry's longest, UPDATEREDIRECTREF, has 17


class Refusal(Exception):
    """The peer's head or framing is at fault: what to answer, why, and the section that says so."""

    def __init__(self, status: int, reason: str, section: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.section = section


def decoded(raw_path: bytes) -> str:
    """Percent-decoded, then UTF-8; bytes that are not UTF-8 become U+FFFD."""
    if b"%" in raw_path:
        from urllib.parse import unquote_to_bytes  # 3 ms of a start that most never need

        raw_path = unquote_to_bytes(raw_path)
    return raw_path.decode("utf-8", "replace")


def check_body_size(size: int, limits: Limits) -> None:
    """`size` as announced or as far as it has come."""
    if limits.body_size and size > limits.body_size:
        raise Refusal(413, f"the body is larger than {limits.body_size} bytes", "RFC 9110 15.5.14")


def check_expectation(value: bytes) -> None:
    """An Expect field's value."""
    if value.lower() != b"100-continue":
        raise Refusal(417, "an expectation other than 100-continue", "RFC 9110 10.1.1")


def check_head_size(size: int, fields: int, limits: Limits) -> None:
    """`size` in bytes from the request line on, as far as the head has come."""
    if size > limits.header_size:
        raise Refusal(431, f"the head is larger than {limits.header_size} bytes", "RFC 6585 5")
    if fields > limits.header_count:
        raise Refusal(431, f"more than {limits.header_count} fields", "RFC 6585 5")
