"""HTTP/1.0 and HTTP/1.1 (RFC 9112): grammar, head rendering, chunked bodies, and the engine."""
