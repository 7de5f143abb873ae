"""A report of a run: one HTML page that holds everything a folder has to show.

What is on the page is decided here; how it looks, in ``templates/report.html``.
"""

import csv
import io
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pspc_rs import __version__
from pspc_rs.errors import InvalidValueError, MissingFileError
from pspc_rs.experiments.charts import Curve, curve_chart, curve_table
from pspc_rs.experiments.display import colours_of, display_name
from pspc_rs.experiments.metrics import METRICS
from pspc_rs.experiments.pages import Record, Table, png_source, render_page, write_page
from pspc_rs.extras import import_pillow

REPORT = "report.html"
"""What the page is called in the run's folder."""

_MAX_ROWS = 400
_WIDE = 1.7
_MACHINE = ("build", "versions", "isa")
_SERIES = ("denoiser", "side", "value", "candidate")
_GROUPS = ("process", "target", "family", "settings")


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


def write_report(run_dir: str | Path, output: str | Path | None = None, *, explorer: str | None = None) -> Path:
    """Writes a page with the pictures, curves, tables, schedules, settings and machine found in a run's folder.

    The page is one HTML file that needs no network: pictures are embedded, there are no scripts. It is readable on a
    phone and follows the reader's dark or light scheme. PNG, CSV and JSON files in the folder and below it are shown,
    except in hidden folders, and a figure of curves that the page draws itself; a file that cannot be read is listed
    with the reason. Tables of more than 400 rows are cut, and say so. The same files give the same bytes.

    Args:
        run_dir: the folder, as `compare`, `fit_schedule` or the figures leave it.
        output: the page; ``report.html`` in the folder if not given.
        explorer: address of a running ``pspc-rs explore``, to which the noise levels of errors then lead.

    Returns:
        The path of the page.

    Raises:
        MissingFileError: there is no such folder.
        InvalidValueError: there is nothing in it to report on, or the address is none of http.
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
    if explorer is not None and not explorer.startswith(("http://", "https://")):
        raise InvalidValueError(f"explorer is {explorer!r:.80}; allowed are addresses such as http://127.0.0.1:8750/")
    target = folder / REPORT if output is None else Path(output)
    contents = read_run(folder)
    if contents.empty:
        raise InvalidValueError(f"{run_dir} holds no PNG, CSV or JSON file; there is nothing to report on")
    page = render_page(
        REPORT,
        title=folder.resolve().name,
        summary=f"{contents.summary}. Written by pspc-rs {__version__}.",
        sections=_sections(contents, explorer),
    )
    return write_page(target, page)


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


def _sections(contents: RunContents, explorer: str | None) -> list[dict[str, Any]]:
    """The sections of the page that have entries; how the template shows an entry depends on the section's id."""
    tables, records = contents.tables, contents.records
    results = {
        name: list(_results(name, rows, drawn=_has_curves(name, contents.pictures), explorer=explorer))
        for name, rows in tables.items()
    }
    # A figure of numbers that a chart shows below would say the same twice.
    charted = {_picture_of(name) for name, found in results.items() if any(one["chart"] for one in found)}
    figures = {name: content for name, content in contents.pictures.items() if name not in charted}
    sections: dict[str, list[Any]] = {
        "Figures": [_picture(name, content, tables) for name, content in figures.items()],
        "Results": [one for found in results.values() for one in found],
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


def _picture_of(table: str) -> str:
    """The picture that a command writes beside a table."""
    return Path(table).with_suffix(".png").as_posix()


def _has_curves(table: str, pictures: Iterable[str]) -> bool:
    """Whether a figure shows the curves of a table: one of its name, or that of a fitted schedule beside it."""
    beside = [one for one in pictures if Path(one).parent == Path(table).parent]
    return any(one == _picture_of(table) or one.endswith("_curves.png") for one in beside)


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


_Groups = dict[tuple[str, ...], dict[tuple[str, str], Curve]]
"""Curves by label and settings, by what tells whole tables apart."""


def _results(
    name: str, rows: Sequence[Sequence[str]], *, drawn: bool, explorer: str | None
) -> Iterator[dict[str, Any]]:
    """Charts and tables of the errors in a CSV file: one row per noise level, one column per denoiser or candidate.

    Those of a target follow each other, and have the same axes.

    Args:
        name: of the file.
        rows: with the header first.
        drawn: whether a figure on the page shows candidates already.
        explorer: the address that noise levels lead to, None for none.
    """
    header = list(rows[0])
    series = next((column for column in _SERIES if column in header), None)
    if series is None or not {"sigma", "mse"} <= set(header):
        return
    # Where a row names its denoiser, its settings are those of that denoiser; else they tell whole tables apart.
    by_name = series == "denoiser"
    columns = [column for column in _GROUPS if column in header and not (by_name and column == "settings")]
    groups = _groups(header, rows[1:], series, columns)
    target = columns.index("target") if "target" in columns else None
    for key in sorted(groups, key=lambda key: _place(key, target, list(groups))):
        title = ", ".join(f"{column} {value}" for column, value in zip(columns, key, strict=True))
        caption = f"{METRICS['mse'].title}: {title}" if title else METRICS["mse"].title
        curves = list(groups[key].values())
        near = [other for other in groups if target is None or other[target] == key[target]]
        beside = [curve for other in near for curve in groups[other].values()]
        note = f"From {name}; ± one standard error; the least of a row in bold."
        chart = None if drawn and not by_name else curve_chart(f"{caption} ({name})", curves, beside)
        table = curve_table(caption, curves, note)
        if explorer is not None:
            table = replace(table, note=f"{note} Noise levels lead to the explorer.", link=f"{explorer}?sigma=")
        yield {"table": table, "chart": chart, "is_first": key == near[0]}


def _groups(header: list[str], rows: Sequence[Sequence[str]], series: str, columns: Sequence[str]) -> _Groups:
    """The curves of a table; none where a cell is no number."""
    groups: _Groups = {}
    by_name = series == "denoiser"
    colours = colours_of(row[header.index(series)] for row in rows)
    for row in rows:
        entry = dict(zip(header, row, strict=True))
        try:
            sigma, mse, error = (float(entry.get(column) or "nan") for column in ("sigma", "mse", "standard_error"))
        except ValueError:
            return {}
        label = display_name(entry[series]) if by_name else _candidate(series, entry[series])
        group = groups.setdefault(tuple(entry[column] for column in columns), {})
        curve = group.setdefault(
            (label, entry.get("settings", "") if by_name else ""), Curve(label, colours[entry[series]])
        )
        curve.points[sigma] = (mse, error)
    for group in groups.values():
        _number(list(group.values()))
    return groups


def _place(key: tuple[str, ...], target: int | None, keys: list[tuple[str, ...]]) -> tuple[int, int]:
    """The order of the results: by target, in the order of the file."""
    first = 0 if target is None else next(i for i, other in enumerate(keys) if other[target] == key[target])
    return first, keys.index(key)


def _candidate(series: str, value: str) -> str:
    return f"{series if series != 'value' else ''} {value.removesuffix('.0')}".strip()


def _number(curves: Sequence[Curve]) -> None:
    """Numbers the later ones of the same label, which have other settings."""
    earlier: Counter[str] = Counter()
    for curve in curves:
        earlier[curve.label] += 1
        if earlier[curve.label] > 1:
            curve.label = f"{curve.label} ({earlier[curve.label]})"
