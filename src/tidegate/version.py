"""The one place that says which version this is; pyproject.toml is held to it by a test."""

__version__ = "0.1.0"
