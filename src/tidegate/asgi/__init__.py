"""The ASGI side. Law: the only place that knows ASGI's dicts; no sockets."""
