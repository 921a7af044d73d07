"""A Starlette application: pages, a stream, a file, work after the answer, and one app in another.

tidegate examples.starlette_app:app
"""

# ruff: noqa: ARG001 (a view is handed its request, whether it looks or not)

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

done_later: list[str] = []
open_streams = 0


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    """What is yielded here is `request.state` in every request."""
    yield {"greeting": "Good tide"}


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.state.greeting}, {request.query_params.get('name', 'you')}")


async def count(request: Request) -> StreamingResponse:
    """Numbers until the client leaves: the generator is closed then, at its `yield`."""

    async def numbers() -> AsyncIterator[str]:
        global open_streams  # noqa: PLW0603 (one number for the page that shows it)
        open_streams += 1
        try:
            number = 0
            while True:
                yield f"{number}\n"
                number += 1
                await asyncio.sleep(0.01)
        finally:
            open_streams -= 1

    return StreamingResponse(numbers(), media_type="text/plain")


async def upload(request: Request) -> JSONResponse:
    """The body, piece by piece, never as a whole."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return JSONResponse({"bytes": size})


async def source(request: Request) -> FileResponse:
    """A file by its path: where the server offers `http.response.pathsend`, it reads the file."""
    return FileResponse(Path(__file__))


async def later(request: Request) -> JSONResponse:
    """An answer now, and work after it."""
    name = request.path_params["name"]
    return JSONResponse({"accepted": name}, background=BackgroundTask(work, name), status_code=202)


async def work(name: str) -> None:
    done_later.append(name)


async def status(request: Request) -> JSONResponse:
    return JSONResponse({"done_later": done_later, "open_streams": open_streams})


async def where(request: Request) -> JSONResponse:
    """A sub-application sees its own path, and the prefix as `root_path`."""
    return JSONResponse(
        {
            "path": request.scope["path"],
            "root_path": request.scope["root_path"],
            "url": str(request.url_for("where")),
        }
    )


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", home),
        Route("/count", count),
        Route("/upload", upload, methods=["POST", "PUT"]),
        Route("/source", source),
        Route("/later/{name}", later, methods=["POST"]),
        Route("/status", status),
        Mount("/inner", app=Starlette(routes=[Route("/where", where, name="where")])),
    ],
)
