"""HTTP/2 (RFC 9113): frames, field compression, streams and their windows, and the engine."""
