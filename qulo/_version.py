"""The version, in a module that imports nothing, so that the build and `--version` can read it cheaply."""

__version__ = "0.1.0"
