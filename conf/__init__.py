"""The configuration of every command."""

__version__ = "0.1.0"
