"""The peers side by side. `make bench`; the method is in bench/README.md."""
