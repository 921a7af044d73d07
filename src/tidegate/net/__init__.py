"""Sockets, the loop and TLS: everything between the kernel and bytes. Knows no HTTP."""
