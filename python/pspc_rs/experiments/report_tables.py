"""Results in the form people read them: one row a noise level, one column a denoiser."""

from collections.abc import Sequence

from pspc_rs.experiments import report_page as page

_NEEDED = ("sigma", "mse")
_SERIES = ("denoiser", "side", "value", "candidate")
_GROUPS = ("process", "target", "family", "settings")


def sections(parts: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str, str]]:
    """Sections as (identifier, title, content), those without content left out.

    Example:
        >>> sections([("Figures", ["<p>one</p>"]), ("Tables", [])])
        [('figures', 'Figures', '<p>one</p>')]
    """
    return [(title.lower().replace(" ", "-"), title, "\n".join(texts)) for title, texts in parts if texts]


def pivots(name: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """Charts and tables of the errors in a CSV file: by noise level and denoiser, side or threshold; else nothing.

    Args:
        name: the file.
        rows: its rows, the header first.

    Example:
        >>> rows = [["denoiser", "sigma", "mse"], ["a", "1.0", "0.5"], ["b", "1.0", "2.0"]]
        >>> len(pivots("mse.csv", rows)), pivots("other.csv", [["a"], ["1"]])
        (1, [])
    """
    header = list(rows[0])
    series = next((column for column in _SERIES if column in header), None)
    if series is None or not set(_NEEDED) <= set(header):
        return []
    # Where a row names its denoiser, its settings are those of that denoiser; else they tell whole tables apart.
    by_name = series == "denoiser"
    present = [column for column in _GROUPS if column in header and not (by_name and column == "settings")]
    groups: dict[tuple[str, ...], dict[tuple[str, str], dict[float, float]]] = {}
    for row in rows[1:]:
        entry = dict(zip(header, row, strict=True))
        try:
            sigma, mse = float(entry["sigma"]), float(entry["mse"])
        except ValueError:
            return []
        group = groups.setdefault(tuple(entry[column] for column in present), {})
        curve = group.setdefault((_label(series, entry[series]), entry.get("settings", "") if by_name else ""), {})
        curve[sigma] = mse
    return [_pivot(name, _title(present, key), _numbered(group)) for key, group in groups.items()]


def _label(series: str, value: str) -> str:
    return (
        value if series == "denoiser" else f"{series if series != 'value' else ''} {value.removesuffix('.0')}".strip()
    )


def _numbered(group: dict[tuple[str, str], dict[float, float]]) -> dict[str, dict[float, float]]:
    """Curves by label; later ones of the same label, with other settings, are numbered."""
    curves: dict[str, dict[float, float]] = {}
    for label, _ in group:
        number = sum(one == label or one.startswith(f"{label} (") for one in curves) + 1
        curves[label if number == 1 else f"{label} ({number})"] = {}
    return dict(zip(curves, group.values(), strict=True))


def _title(columns: Sequence[str], key: Sequence[str]) -> str:
    return ", ".join(f"{column} {value}" for column, value in zip(columns, key, strict=True))


def _pivot(name: str, title: str, group: dict[str, dict[float, float]]) -> str:
    sigmas = sorted({sigma for column in group.values() for sigma in column}, reverse=True)
    body = [
        [f"{sigma:.4g}", *(f"{column[sigma]:.3g}" if sigma in column else "" for column in group.values())]
        for sigma in sigmas
    ]
    caption = f"MSE: {title}" if title else "MSE"
    chart = page.chart(f"{caption} ({name})", group)
    return f"<h3>{page.escape(caption)}</h3>{chart}{page.table(caption, ['sigma', *group], body, note=f'From {name}.')}"
