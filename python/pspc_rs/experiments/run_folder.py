"""The folder of a comparison: its tables, the settings behind their keys, and the noisy sets."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pspc_rs.errors import DataError
from pspc_rs.experiments.settings import numeric_settings
from pspc_rs.experiments.table import Kind, ResultTable
from pspc_rs.provenance import plain, save_record

KEY = ("process", "target", "denoiser", "settings", "level")
"""What tells a row from every other, and the order of the rows."""

_KEY_COLUMNS: dict[str, Kind] = {"process": str, "target": str, "denoiser": str, "settings": str, "level": int}


class RunFolder:
    """The files of `compare`.

    Attributes:
        mse: ``mse.csv``, the MSE of every process, target, denoiser, settings and level.
        times: ``times.csv``, the seconds that its rows took.

    Args:
        path: the folder; made when something is written.

    Raises:
        DataError: the folder holds files that are not these.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = RunFolder(Path(path))
        ...     len(folder.mse), folder.settings
        (0, {})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        numbers: dict[str, Kind] = {"sigma": float, "n": int, "mse": float, "standard_error": float}
        self.mse = ResultTable(path / "mse.csv", {**_KEY_COLUMNS, **numbers}, KEY)
        self.times = ResultTable(path / "times.csv", {**_KEY_COLUMNS, "seconds": float}, KEY)
        self._settings_path = path / "settings.json"
        self.settings = self._read_settings()

    def remember(self, key: str, settings: Mapping[str, object]) -> None:
        """Writes down the settings behind a key, with the versions that it is first used with.

        Raises:
            OutputError: the file cannot be written.
        """
        if key not in self.settings:
            made_with = {name: value for name, value in numeric_settings().items() if name != "noise"}
            self.settings[key] = {**plain(settings), "made_with": made_with}
            save_record(self._settings_path, dict(sorted(self.settings.items())))

    def noisy(self, target: str, key: str) -> Path:
        """The file of a target's reverse noisy set."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", target)
        return self.path / "noisy" / f"reverse_{safe}_{key}.npy"

    def _read_settings(self) -> dict[str, Any]:
        if not self._settings_path.exists():
            return {}
        try:
            content = json.loads(self._settings_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self._settings_path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise DataError(f"{self._settings_path} holds a {type(content).__name__}; needed is an object")
        return content
