"""A small real Django site: middleware, routing, an ordinary view, a template.

The view is a plain function, as most are, so Django runs it in its thread.
"""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.django_settings")

ORDERS = [
    {"number": number, "customer": f"customer {number}", "total": number * 19.9}
    for number in range(1, 11)
]


def orders(request: HttpRequest, year: int) -> HttpResponse:
    """A table of ten rows."""
    return render(request, "orders.html", {"title": f"Orders of {year}", "orders": ORDERS})


urlpatterns = [path("orders/<int:year>/", orders)]
application = get_asgi_application()
