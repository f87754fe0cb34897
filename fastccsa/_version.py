"""The version of the package, by itself so that nothing has to import the facade to learn it."""

__version__ = "0.1.0"
