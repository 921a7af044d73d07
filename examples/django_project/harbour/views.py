"""One view for each way Django has to answer, plain and async."""

# ruff: noqa: ARG001 (a view is handed its request, whether it looks or not)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

watching = 0


def home(request: HttpRequest) -> HttpResponse:
    """Django runs a plain view in a thread."""
    return HttpResponse(f"{request.method} {request.get_full_path()}", content_type="text/plain")


async def home_async(request: HttpRequest) -> JsonResponse:
    """An async view runs in the server's own loop."""
    await asyncio.sleep(0)
    return JsonResponse(
        {
            "scheme": request.scheme,
            "host": request.get_host(),
            "client": request.META["REMOTE_ADDR"],
            "watching": watching,
        }
    )


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(100):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingHttpResponse(lines(), content_type="text/plain")


def stream_sync(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        return (f"line {number}\n" for number in range(100))

    return StreamingHttpResponse(lines(), content_type="text/plain")


def source(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"), content_type="text/x-python")


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """Form fields and files; Django keeps a large file on disk while it arrives."""
    files = {name: each.size for name, each in request.FILES.items()}
    return JsonResponse({"fields": request.POST.dict(), "files": files})


async def tide(request: HttpRequest) -> StreamingHttpResponse:
    """Server-sent events until the client leaves: Django then cancels the generator."""

    async def events() -> AsyncIterator[str]:
        global watching  # noqa: PLW0603 (one number, for `home_async` to show)
        watching += 1
        try:
            number = 0
            while True:
                yield f"data: {number}\n\n"
                number += 1
                await asyncio.sleep(0.01)
        finally:
            watching -= 1

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("this view fails, to show what a visitor then sees")
