"""The version of the package, in a separate module so that no other module imports the facade for it."""

__version__ = "0.1.0"
