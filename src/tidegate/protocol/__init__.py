"""The wire's grammar. Law: bytes in, events and bytes out; no await, socket, clock or logger."""
