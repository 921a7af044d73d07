"""A real FastAPI endpoint: path and query are validated, the answer goes through a model."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel


class Line(BaseModel):
    article: str
    quantity: int
    price: float


class Order(BaseModel):
    number: int
    open: bool
    lines: list[Line]


application = FastAPI(openapi_url=None)


@application.get("/orders/{number}")
async def order(number: int, open: bool = False) -> Order:
    """An order with three lines."""
    lines = [Line(article=f"article {n}", quantity=n, price=n * 2.5) for n in range(1, 4)]
    return Order(number=number, open=open, lines=lines)
