"""What of a stack is the application's: where something blocks, hangs or crashed."""

from __future__ import annotations

import os
import traceback
from types import FrameType

_CALLED_BY_US = f"{os.sep}tidegate{os.sep}asgi{os.sep}"
LINES = 40  # of a stack that are shown


def of_application(frame: FrameType | None) -> traceback.StackSummary:
    """Where a thread stands, without those of our frames that have called it."""
    stack = traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()
    ours = [at for at, one in enumerate(stack) if _CALLED_BY_US in one.filename]
    below = ours[-1] + 1 if ours else 0
    return traceback.StackSummary.from_list(stack[below:] or stack)


def indented(stack: str) -> str:
    """faulthandler's text, the innermost frame first, to stand below a sentence; "" for none."""
    lines = stack.splitlines()
    ours = next((at for at, line in enumerate(lines) if _CALLED_BY_US in line), len(lines))
    if ours > 1:  # the frames above are the application's, those below ours
        lines = lines[:ours]
    if len(lines) > LINES:
        lines = [*lines[:LINES], "..."]
    return "".join(f"\n{line}" for line in lines)
