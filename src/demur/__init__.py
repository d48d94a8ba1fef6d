"""What a model must not learn, must refuse, must admit it does not know, must forget, must not be tricked out of."""

from importlib.metadata import PackageNotFoundError, version

from demur.errors import DemurError, RowError, UnknownNameError, UsageError

__all__ = ["DemurError", "RowError", "UnknownNameError", "UsageError", "__version__"]

try:
    __version__ = version("demur")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
