"""A FastAPI application: checked JSON in and out, plain functions in threads, events as they come.

tidegate examples.fastapi_app:app
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI(title="Harbour")


class Boat(BaseModel):
    name: str = Field(min_length=1, max_length=40)
    draught: float = Field(gt=0, description="metres below the water line")


harbour: dict[str, Boat] = {}


def visitor(user_agent: Annotated[str, Header()] = "somebody") -> str:
    return user_agent


@app.get("/")
async def home(seen: Annotated[str, Depends(visitor)]) -> dict[str, str | int]:
    return {"hello": seen, "boats": len(harbour)}


@app.put("/boats/{berth}", status_code=201)
async def moor(berth: str, boat: Boat) -> Boat:
    harbour[berth] = boat
    return boat


@app.get("/boats/{berth}")
def look_up(berth: str) -> Boat:
    """Not `async`, so FastAPI runs it in a thread."""
    if berth not in harbour:
        raise HTTPException(404, f"nothing lies at berth {berth}")
    return harbour[berth]


@app.post("/cargo")
async def cargo(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(piece) async for piece in request.stream()])}


@app.get("/tide")
async def tide(steps: int = 3) -> StreamingResponse:
    """Server-sent events, one at a time."""

    async def levels() -> AsyncIterator[str]:
        for step in range(steps):
            yield f"data: {step}\n\n"
            await asyncio.sleep(0)

    return StreamingResponse(levels(), media_type="text/event-stream")
