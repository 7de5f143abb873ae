"""A report of a run: one HTML page that holds everything a folder has to show.

What is on the page is decided here; how it looks, in ``templates/report.html``.
"""

import csv
import io
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pspc_rs import __version__
from pspc_rs.errors import InvalidValueError, MissingFileError
from pspc_rs.experiments.metrics import METRICS
from pspc_rs.experiments.pages import Record, Table, png_source, write_page
from pspc_rs.extras import import_pillow

REPORT = "report.html"
"""What the page is called in the run's folder."""

_MAX_ROWS = 400
_WIDE = 1.7
_MACHINE = ("build", "versions", "isa")
_SERIES = ("denoiser", "side", "value", "candidate")
_GROUPS = ("process", "target", "family", "settings")
# Readable on white and on black.
_COLOURS = (
    "#2f81f7",
    "#d2691e",
    "#2da44e",
    "#c03a76",
    "#8a63d2",
    "#8c7300",
    "#008b8b",
    "#777f88",
    "#d1242f",
    "#5c7cfa",
)


@dataclass
class RunContents:
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

    def __repr__(self) -> str:
        return f"RunContents({self.summary})"

    @property
    def empty(self) -> bool:
        """Whether there is nothing to report on."""
        return not (self.pictures or self.tables or self.schedules or self.records)

    @property
    def summary(self) -> str:
        """How much of what there is, in words."""
        counts = [(len(self.pictures), "figure"), (len(self.tables), "table"), (len(self.schedules), "schedule")]
        return ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts)


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
        MissingDependencyError: jinja2 is not installed.
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
    contents = read_run(folder)
    if contents.empty:
        raise InvalidValueError(f"{run_dir} holds no PNG, CSV or JSON file; there is nothing to report on")
    return write_page(
        target,
        REPORT,
        title=folder.resolve().name,
        summary=f"{contents.summary}. Written by pspc-rs {__version__}.",
        sections=_sections(contents),
    )


def read_run(folder: Path) -> RunContents:
    """What a folder holds that a page can show.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "bad.json").write_text("{")
        ...     sorted(read_run(Path(folder)).unreadable)
        ['bad.json']
    """
    contents = RunContents()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            try:
                _read_file(contents, name.as_posix(), path)
            except (OSError, ValueError, csv.Error, RecursionError) as error:
                contents.unreadable[name.as_posix()] = " ".join(str(error).split())
    return contents


def _read_file(contents: RunContents, name: str, path: Path) -> None:
    match path.suffix.lower():
        case ".png":
            Image = import_pillow()
            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.load()
            contents.pictures[name] = content
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file, strict=True))
            if not rows or any(len(row) != len(rows[0]) for row in rows):
                raise ValueError("rows of different lengths, or none")
            contents.tables[name] = rows
        case ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"holds a {type(content).__name__}; needed is an object")
            is_schedule = content.get("kind") in ("patch", "threshold")
            (contents.schedules if is_schedule else contents.records)[name] = content


def _sections(contents: RunContents) -> list[dict[str, Any]]:
    """The sections of the page that have entries; how the template shows an entry depends on the section's id."""
    tables, records = contents.tables, contents.records
    sections: dict[str, list[Any]] = {
        "Figures": [_picture(name, content, tables) for name, content in contents.pictures.items()],
        "Results": [result for name, rows in tables.items() for result in _results(name, rows)],
        "Schedules": [_schedule(name, content) for name, content in contents.schedules.items()],
        "Tables": [_table(name, rows) for name, rows in tables.items()],
        "Settings": [Record(name, _without_machine(content)) for name, content in records.items()],
        "Machine": _machines(records),
        "Files that could not be read": [
            {"name": name, "reason": reason} for name, reason in contents.unreadable.items()
        ],
    }
    return [
        {"id": title.lower().replace(" ", "-"), "title": title, "entries": entries}
        for title, entries in sections.items()
        if entries
    ]


def _picture(name: str, content: bytes, tables: Mapping[str, object]) -> dict[str, Any]:
    """An embedded picture, with the name of the table behind it, if there is one."""
    width, height = struct.unpack(">II", content[16:24])
    behind = Path(name).with_suffix(".csv").as_posix()
    return {
        "name": name,
        "spoken": name.removesuffix(".png").replace("_", " ").replace("/", ", "),
        "source": png_source(content),
        "width": width,
        "height": height,
        "is_wide": width > _WIDE * height,
        "numbers": behind if behind in tables else "",
    }


def _table(name: str, rows: list[list[str]]) -> Table:
    header, body = rows[0], rows[1:]
    note = f"The first {_MAX_ROWS} of {len(body)} rows." if len(body) > _MAX_ROWS else ""
    return Table(name, header, body[:_MAX_ROWS], note, len(body))


def _schedule(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule's values by noise level, and where they come from."""
    values = content.get("patch_sizes", content.get("thresholds", []))
    size = " x ".join(str(side) for side in content.get("image_size", []))
    caption = f"{name}: {content.get('name', '')}, images of {size}"
    what = "side" if content.get("kind") == "patch" else "threshold"
    rows = [[str(sigma), str(value)] for sigma, value in zip(content.get("sigmas", []), values, strict=False)]
    origin = content.get("provenance")
    shown = Record("Where it comes from", origin) if isinstance(origin, Mapping) and origin else None
    return {"table": Table(caption, ["sigma", what], rows), "origin": shown}


def _without_machine(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _MACHINE}


def _machines(records: Mapping[str, dict[str, Any]]) -> list[Record]:
    """The machines of the records, each once, with the files that it made."""
    machines: dict[str, list[str]] = {}
    for name, content in records.items():
        machine = {key: content[key] for key in _MACHINE if key in content}
        if machine:
            machines.setdefault(json.dumps(machine), []).append(name)
    return [Record(", ".join(names), json.loads(text), is_open=True) for text, names in machines.items()]


Curves = dict[str, dict[float, float]]
"""MSE by noise level, by label."""


def _results(name: str, rows: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Charts and tables of the errors in a CSV file: one row per noise level, one column per denoiser or candidate."""
    header = list(rows[0])
    series = next((column for column in _SERIES if column in header), None)
    if series is None or not {"sigma", "mse"} <= set(header):
        return
    # Where a row names its denoiser, its settings are those of that denoiser; else they tell whole tables apart.
    by_name = series == "denoiser"
    columns = [column for column in _GROUPS if column in header and not (by_name and column == "settings")]
    groups: dict[tuple[str, ...], dict[tuple[str, str], dict[float, float]]] = {}
    for row in rows[1:]:
        entry = dict(zip(header, row, strict=True))
        try:
            sigma, mse = float(entry["sigma"]), float(entry["mse"])
        except ValueError:
            return
        group = groups.setdefault(tuple(entry[column] for column in columns), {})
        curve = group.setdefault((_label(series, entry[series]), entry.get("settings", "") if by_name else ""), {})
        curve[sigma] = mse
    for key, group in groups.items():
        title = ", ".join(f"{column} {value}" for column, value in zip(columns, key, strict=True))
        yield _result(name, f"{METRICS['mse'].title}: {title}" if title else METRICS["mse"].title, _numbered(group))


def _result(name: str, caption: str, curves: Curves) -> dict[str, Any]:
    sigmas = sorted({sigma for curve in curves.values() for sigma in curve}, reverse=True)
    body = [
        [f"{sigma:.4g}", *(f"{curve[sigma]:.3g}" if sigma in curve else "" for curve in curves.values())]
        for sigma in sigmas
    ]
    table = Table(caption, ["sigma", *curves], body, note=f"From {name}.")
    return {"table": table, "chart": _chart(f"{caption} ({name})", curves)}


def _label(series: str, value: str) -> str:
    if series == "denoiser":
        return value
    return f"{series if series != 'value' else ''} {value.removesuffix('.0')}".strip()


def _numbered(group: dict[tuple[str, str], dict[float, float]]) -> Curves:
    """Curves by label; later ones of the same label, with other settings, are numbered."""
    curves: Curves = {}
    for label, _ in group:
        number = sum(one == label or one.startswith(f"{label} (") for one in curves) + 1
        curves[label if number == 1 else f"{label} ({number})"] = {}
    return dict(zip(curves, group.values(), strict=True))


def _chart(title: str, curves: Curves) -> dict[str, Any] | None:
    """Where the lines and labels of a drawing stand, 640 x 335, both axes logarithmic; None if nothing is positive."""
    logs = {
        name: sorted((math.log10(x), math.log10(y)) for x, y in curve.items() if x > 0 and 0 < y < math.inf)
        for name, curve in curves.items()
    }
    points = [point for curve in logs.values() for point in curve]
    if not points:
        return None
    (left, right), (low, high) = (_limits([point[axis] for point in points]) for axis in (0, 1))

    def across(x: float) -> float:
        return 60 + 570 * (x - left) / (right - left)

    def down(y: float) -> float:
        return 20 + 270 * (high - y) / (high - low)

    heights = [(down(math.log10(value)), value) for value in _ticks(low, high)]
    return {
        "title": title,
        "columns": [(f"{across(math.log10(value)):.1f}", f"{value:g}") for value in _ticks(left, right)],
        "lines": [(f"{y:.1f}", f"{y + 4:.1f}", f"{value:g}") for y, value in heights],
        "curves": [
            {
                "name": name,
                "colour": _COLOURS[index % len(_COLOURS)],
                "points": " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve),
            }
            for index, (name, curve) in enumerate(logs.items())
        ],
    }


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis in decades, with a margin."""
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms, and twice and five times these where there are few."""
    steps = (1,) if high - low > 2 else (1, 2, 5)
    values = [step * 10.0**decade for decade in range(math.floor(low), math.ceil(high)) for step in steps]
    return [value for value in values if low <= math.log10(value) <= high]
