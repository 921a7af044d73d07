"""Field compression for HTTP/2 (RFC 7541): one decoder and one encoder for a connection."""
