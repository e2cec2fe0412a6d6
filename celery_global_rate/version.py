"""The version of this package, which workers report to operators."""

__version__ = "0.2.1"
