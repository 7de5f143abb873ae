"""Every exception the package raises on purpose.

Each one is a `PspcError` and also the built-in exception a caller would expect, so both
``except PspcError`` and ``except ValueError`` work. A message says what was wrong, the value that was
given, and what is allowed.
"""

__all__ = [
    "CoverageError",
    "CudaError",
    "DTypeError",
    "DataError",
    "DownloadError",
    "GradientError",
    "InvalidValueError",
    "MissingDependencyError",
    "MissingFileError",
    "NetworkError",
    "OutOfMemoryError",
    "OutputError",
    "PspcError",
    "ScheduleError",
    "ShapeError",
]


class PspcError(Exception):
    """Base class of every exception raised on purpose by pspc_rs."""


class ShapeError(PspcError, ValueError):
    """An array has the wrong number of axes or the wrong lengths."""


class DTypeError(PspcError, TypeError):
    """An array or argument has a type that cannot be used."""


class InvalidValueError(PspcError, ValueError):
    """A number is outside what is allowed: NaN or infinite pixels, sigma <= 0, an oversized window."""


class CoverageError(PspcError, ValueError):
    """Some pixel is covered by no window or mask, so that its denoised value would be undefined."""


class ScheduleError(PspcError, ValueError):
    """A schedule does not fit the image size or the noise grid."""


class DataError(PspcError, ValueError):
    """A data set is empty, damaged, inconsistent or not in a known format."""


class MissingFileError(PspcError, FileNotFoundError):
    """A path does not exist."""


class OutOfMemoryError(PspcError, MemoryError):
    """The engine's working space does not fit into memory."""


class OutputError(PspcError, OSError):
    """An output cannot be written, or does not belong to the run that would resume it."""


class DownloadError(PspcError, OSError):
    """A data set could not be downloaded or failed its checksum."""


class CudaError(PspcError, RuntimeError):
    """A GPU was asked for and cannot be used, or something failed on it."""


class GradientError(PspcError, NotImplementedError):
    """A derivative is wanted of what has none: torch would have got a result without a graph."""


class NetworkError(PspcError, RuntimeError):
    """A network raised an exception, which is the cause of this one."""


class MissingDependencyError(PspcError, ImportError):
    """An optional dependency is not installed, or cannot be imported; the message says which and why."""
