"""Configure every command: YAML files, and their composition with a command line."""

__version__ = "0.1.0"
