"""Glue: the only place that joins net, protocol and asgi."""
