"""Every exception the package raises on purpose.

Each one is a `PspcError` and also the built-in exception a caller would expect, so both
``except PspcError`` and ``except ValueError`` work. A message says what was wrong, the value that was
given, and what is allowed. Where the package goes on after it has decided or left out something, it says so by a
`PspcWarning`.
"""

import sys
import warnings

__all__ = [
    "CoverageError",
    "CudaError",
    "DTypeError",
    "DataError",
    "DownloadError",
    "GradientError",
    "ImageIndexError",
    "InvalidValueError",
    "MissingDependencyError",
    "MissingFileError",
    "NetworkError",
    "OutOfMemoryError",
    "OutputError",
    "PspcError",
    "PspcWarning",
    "ScheduleError",
    "ShapeError",
]


class PspcError(Exception):
    """Base class of every exception raised on purpose by pspc_rs.

    Example:
        >>> import pspc_rs as pspc
        >>> try:
        ...     pspc.edm_sigmas(0)
        ... except pspc.PspcError as error:
        ...     print(type(error).__name__, isinstance(error, ValueError))
        InvalidValueError True
    """

    def __str__(self) -> str:
        # A file name that is no UTF-8 has letters that cannot be printed.
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")


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


class ImageIndexError(PspcError, IndexError):
    """An index is outside a data set."""


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


class PspcWarning(UserWarning):
    """What pspc_rs decided or left out, and how to have it otherwise."""


def warn(message: str) -> None:
    """Gives a `PspcWarning` at the line of the user's code that called the package.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("the labels are left out")
        >>> caught[0].category.__name__, str(caught[0].message)
        ('PspcWarning', 'the labels are left out')
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "pspc_rs":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, PspcWarning, stacklevel=level)
