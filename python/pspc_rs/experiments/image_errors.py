"""The errors of single images behind a table of means."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError
from pspc_rs.files import replacing
from pspc_rs.outputs import open_array

Errors: TypeAlias = NDArray[np.float64]
"""The squared error of every image, its mean over values in [-1, 1] units, [n]."""


class ImageErrors:
    """The errors of single images behind the rows of `compare`, a small file for each row.

    Args:
        folder: of the files; made when one is written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = ImageErrors(Path(folder))
        ...     kept.keep("0f", 3, np.array([0.1, 0.3]))
        ...     kept.read("0f", 3, 2), kept.read("0f", 4, 2)
        (array([0.1, 0.3]), None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"ImageErrors({str(self.folder)!r})"

    def keep(self, settings: str, level: int, errors: Errors) -> None:
        """Writes the errors of a row.

        Raises:
            OutputError: the file cannot be written.
        """
        path = self._path(settings, level)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, errors)

    def read(self, settings: str, level: int, n: int) -> Errors | None:
        """The errors of a row of n images; None for rows of earlier versions, which kept none.

        Raises:
            DataError: the file holds something else.
        """
        path = self._path(settings, level)
        if not path.exists():
            return None
        errors = np.array(open_array(path), np.float64)
        if errors.shape != (n,):
            raise DataError(f"{path} holds errors of shape {list(errors.shape)}; needed is [{n}]")
        return errors

    def _path(self, settings: str, level: int) -> Path:
        return self.folder / settings / f"{level:03d}.npy"
