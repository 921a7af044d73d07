"""What an application says in a WebSocket's messages, checked; ApplicationError if it is wrong."""

from __future__ import annotations

from tidegate.errors import ApplicationError
from tidegate.protocol.websocket.engine import CODES, NORMAL, REASON_BOUND
from tidegate.types import Message


def content_of(message: Message) -> str | bytes:
    """What `websocket.send` sends where it is not simply a str or bytes; raises what is wrong."""
    text, data = message.get("text"), message.get("bytes")
    if (text is None) is (data is None):
        raise ApplicationError("websocket.send needs either 'text' or 'bytes'")
    if text is not None:
        if isinstance(text, str):
            return str(text)
        raise ApplicationError(f"'text' of websocket.send must be a str, not {type(text).__name__}")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"'bytes' of websocket.send must be bytes, not {type(data).__name__}")


def closing_of(message: Message) -> tuple[int, str]:
    """The code and reason of `websocket.close`."""
    code, reason = message.get("code", NORMAL), message.get("reason") or ""
    if code is None:
        code = NORMAL
    if type(code) is not int or code not in CODES:
        raise ApplicationError(
            f"websocket.close cannot have the code {code!r}: RFC 6455 7.4 allows 1000 to 1003, "
            "1007 to 1014 and 3000 to 4999"
        )
    try:
        size = len(reason.encode())
    except (AttributeError, UnicodeEncodeError):
        size = REASON_BOUND + 1
    if size > REASON_BOUND:
        raise ApplicationError(
            f"the reason of websocket.close must be a str of at most {REASON_BOUND} bytes"
        )
    return code, reason
