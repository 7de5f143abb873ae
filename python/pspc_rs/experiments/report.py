"""A report of a run: one page that holds everything a folder has to show."""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pspc_rs import __version__
from pspc_rs.errors import InvalidValueError, MissingFileError
from pspc_rs.experiments import report_page as page
from pspc_rs.experiments.report_tables import pivots, sections
from pspc_rs.files import replacing

REPORT = "report.html"
"""What the page is called in the run's folder."""

_MAX_ROWS = 400
_MACHINE = ("build", "versions", "isa")


@dataclass
class Found:
    """What a run's folder holds, by path relative to it.

    Attributes:
        pictures: PNG files, as bytes.
        tables: CSV files, as rows of text with the header first.
        schedules: JSON files of schedules.
        records: other JSON files, such as provenance.
        unreadable: files that should have been one of these, and what is wrong with them.
    """

    pictures: dict[str, bytes] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report on."""
        return not (self.pictures or self.tables or self.schedules or self.records)


def write_report(run_dir: str | Path, output: str | Path | None = None) -> Path:
    """Writes a page with the pictures, curves, tables, schedules, settings and machine found in a run's folder.

    The page is one HTML file that needs no network: pictures are embedded, there are no scripts. It is readable on a
    phone and follows the reader's dark or light scheme. PNG, CSV and JSON files in the folder and below it are shown,
    except in hidden folders; a file that cannot be read is listed with the reason. Tables of more than 400 rows are
    cut, and say so. The same files give the same bytes.

    Args:
        run_dir: the folder, as `compare`, `fit_schedule` or the figures leave it.
        output: the page; ``report.html`` in the folder if not given.

    Returns:
        The path of the page.

    Raises:
        MissingFileError: there is no such folder.
        InvalidValueError: there is nothing in it to report on.
        OutputError: the page cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "mse.csv").write_text("sigma,mse")
        ...     text = write_report(folder).read_text(encoding="utf-8")
        >>> "<table" in text, "<script" in text
        (True, False)
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {run_dir}")
    target = folder / REPORT if output is None else Path(output)
    found = find(folder)
    if found.empty:
        raise InvalidValueError(f"{run_dir} holds no PNG, CSV or JSON file; there is nothing to report on")
    with replacing(target) as temporary:
        temporary.write_text(_page(folder.resolve().name, found), encoding="utf-8")
    return target


def find(folder: Path) -> Found:
    """What a folder holds that a page can show.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "bad.json").write_text("{")
        ...     sorted(find(Path(folder)).unreadable)
        ['bad.json']
    """
    found = Found()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            try:
                _take(found, name.as_posix(), path)
            except (OSError, ValueError, csv.Error, RecursionError) as error:
                found.unreadable[name.as_posix()] = " ".join(str(error).split())
    return found


def _take(found: Found, name: str, path: Path) -> None:
    match path.suffix.lower():
        case ".png":
            from PIL import Image

            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.load()
            found.pictures[name] = content
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file, strict=True))
            if not rows or any(len(row) != len(rows[0]) for row in rows):
                raise ValueError("rows of different lengths, or none")
            found.tables[name] = rows
        case ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"holds a {type(content).__name__}; needed is an object")
            (found.schedules if content.get("kind") in ("patch", "threshold") else found.records)[name] = content


def _page(title: str, found: Found) -> str:
    parts = [
        ("Figures", [page.picture(name, content, _numbers(name, found)) for name, content in found.pictures.items()]),
        ("Results", [text for name, rows in found.tables.items() for text in pivots(name, rows)]),
        ("Schedules", [page.schedule(name, content) for name, content in found.schedules.items()]),
        ("Tables", [_table(name, rows) for name, rows in found.tables.items()]),
        ("Settings", [page.record(name, _without_machine(content)) for name, content in found.records.items()]),
        ("Machine", _machine(found)),
        ("Files that could not be read", [page.problem(name, why) for name, why in found.unreadable.items()]),
    ]
    counts = [(len(found.pictures), "figure"), (len(found.tables), "table"), (len(found.schedules), "schedule")]
    summary = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    return page.document(title, f"{summary}. Written by pspc-rs {__version__}.", sections(parts))


def _numbers(name: str, found: Found) -> str:
    """The table behind a figure, if there is one."""
    table = str(Path(name).with_suffix(".csv").as_posix())
    return table if table in found.tables else ""


def _table(name: str, rows: list[list[str]]) -> str:
    header, body = rows[0], rows[1:]
    cut = f"The first {_MAX_ROWS} of {len(body)} rows." if len(body) > _MAX_ROWS else ""
    summary = f"{name} ({len(body)} row{'s' * (len(body) != 1)})"
    return page.details(summary, page.table(name, header, body[:_MAX_ROWS], note=cut))


def _without_machine(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _MACHINE}


def _machine(found: Found) -> list[str]:
    """The machines of the records, each once, with the files that it made."""
    machines: dict[str, list[str]] = {}
    for name, content in found.records.items():
        machine = {key: content[key] for key in _MACHINE if key in content}
        if machine:
            machines.setdefault(json.dumps(machine), []).append(name)
    return [page.record(", ".join(names), json.loads(text), is_open=True) for text, names in machines.items()]
