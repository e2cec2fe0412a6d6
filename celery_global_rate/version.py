"""The version of this package, which workers tell each other's operators."""

__version__ = "0.2.1"
