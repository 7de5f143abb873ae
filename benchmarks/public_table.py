"""The public table: training-free denoisers on CIFAR-10 beside published numbers, as CSV, Markdown and a figure.

    python benchmarks/public_table.py --data cifar10-32x32.zip --test cifar10-test-1k-32x32.zip --published numbers.csv
        --out out/table [--pool 10000|all] [--seeds 0,1] [--members gaussian,empirical] [--levels 0.05,0.452]

Denoisers are made of the first --pool images of --data, without flips, and tried on the images of --test with noise,
the same for all. An error is the squared distance to the clean image in [0, 1] pixels. Levels are those of the
published numbers, in [0, 1] pixels, half of those in [-1, 1] pixels. The settings of LS and PCA-locality at each level
are the published ones, and ELS takes those of LS; the sides of PSPC-Square, the thresholds of PSPC-Flex and the widths
of soft windows are those of least error among the first --fit-pool images on the --fit-images that follow, whatever
the pool.

What is finished is in the folder ``cells`` of --out, so that the same command, or one with other members, levels or
seeds, goes on where a stopped one was. Written are public_table.csv, .md, .json (where it comes from), .png, .pdf and
.npz (the errors of every image).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from public_cells import Cell, Cells, Scored, choose_settings
from public_members import MEMBERS, Pool
from public_numbers import PublishedLevel, chosen_levels, read_published
from public_report import draw_distances, markdown, ratio_figure, rows_of

import pspc_rs as pspc
from pspc_rs.checks import integer, one_of
from pspc_rs.errors import InvalidValueError, PspcError, ShapeError
from pspc_rs.experiments.figures import save_figure
from pspc_rs.experiments.fit_rules import find_rule
from pspc_rs.files import replacing
from pspc_rs.provenance import Clock, describe_data, provenance, save_record

_ELS_LEVELS = "0.05,0.127,0.452,0.853,1.61,2.212,5"


def main(arguments: Sequence[str] | None = None) -> None:
    """Computes what is missing and writes the table."""
    args = _parser().parse_args(arguments)
    try:
        _make(args)
    except PspcError as error:
        raise SystemExit(f"public_table: {error}") from error


def _make(args: argparse.Namespace) -> None:
    clock = Clock()
    published = read_published(args.published)
    levels = chosen_levels(published, args.levels)
    data = pspc.load(args.data, xflip=False)
    tests = _test_images(data, args.test, args.images)
    pool = Pool(data if args.pool is None else _part(data, 0, args.pool))
    table = _Table(args, data, pool, tests)
    cells = [cell for name in args.members for cell in table.cells_of(name, _levels_of(name, levels, args.els_levels))]
    title = f"{pool.data.num_stored:,} images, {len(tests):,} test images"
    _write(args.out / "public_table", title, cells, levels)
    options = {name: value for name, value in vars(args).items() if name != "out"}
    record = provenance("public table", options, data=pool.data, clock=clock, test=describe_data(tests))
    save_record(args.out / "public_table.json", record)


class _Table:
    """What all members share."""

    def __init__(self, args: argparse.Namespace, data: pspc.ImageSet, pool: Pool, tests: pspc.ImageSet) -> None:
        self.args, self.data, self.pool = args, data, pool
        self.cells = Cells(args.out / "cells", args.batch)
        self.tests = Scored(tests)
        self.fewer_tests = Scored(_part(tests, 0, min(args.els_images, len(tests))))

    def cells_of(self, name: str, levels: Sequence[PublishedLevel]) -> list[Cell]:
        """All cells of a member, which are printed as they are found."""
        scored = self.fewer_tests if name == "els" else self.tests
        found = []
        for level, setting in zip(levels, self._settings(name, levels), strict=True):
            for seed in self.args.seeds:
                cell = self.cells.cell(self.pool, scored, name=name, sigma01=level.sigma01, seed=seed, setting=setting)
                found.append(cell)
                own = "" if setting is None else f", {MEMBERS[name].setting} {setting:g}"
                print(
                    f"{MEMBERS[name].title}{own}, sigma {level.sigma01:g}, seed {seed}: {cell.errors.mean():.5g} "
                    f"({len(cell.errors)} images in {cell.seconds:.1f} s)",
                    flush=True,
                )
        return found

    def _settings(self, name: str, levels: Sequence[PublishedLevel]) -> list[float | None]:
        member = MEMBERS[name]
        if member.given is not None:
            return [level.settings[member.given] for level in levels]
        candidates = member.candidates(*self.data.shape[1:])
        if not candidates:
            return [None] * len(levels)
        rule = find_rule(self.args.rule, None, self.args.fit_pool)
        sigmas, (pool, held_out) = [level.sigma01 for level in levels], self._fit_images
        return choose_settings(self.cells, name, sigmas, candidates, pool=pool, held_out=held_out, rule=rule)

    @cached_property
    def _fit_images(self) -> tuple[Pool, Scored]:
        """What settings are chosen on: a pool, and images that are not in it."""
        start, stop = self.args.fit_pool, self.args.fit_pool + self.args.fit_images
        return Pool(_part(self.data, 0, start)), Scored(_part(self.data, start, stop))


def _levels_of(name: str, levels: Sequence[PublishedLevel], of_els: Sequence[float]) -> list[PublishedLevel]:
    """The levels at which a member is tried.

    Raises:
        InvalidValueError: it is ELS, and there is none.
    """
    chosen = [level for level in levels if name != "els" or level.sigma01 in of_els]
    if not chosen:
        raise InvalidValueError(f"levels of ELS are {of_els}; none is among {[level.sigma01 for level in levels]}")
    return chosen


def _part(data: pspc.ImageSet, start: int, stop: int) -> pspc.ImageSet:
    """Images start to stop.

    Raises:
        InvalidValueError: there are not so many.
    """
    if stop > data.num_stored:
        raise InvalidValueError(f"images {start} to {stop} are needed; {data.name} has {data.num_stored}")
    return data.subset(range(start, stop))


def _test_images(data: pspc.ImageSet, path: str, images: int | None) -> pspc.ImageSet:
    tests = pspc.load(path, xflip=False)
    if tests.shape != data.shape:
        raise ShapeError(f"test images have shape {list(tests.shape)}; needed is that of the data, {list(data.shape)}")
    return tests if images is None else _part(tests, 0, images)


def _write(stem: Path, title: str, cells: Sequence[Cell], levels: Sequence[PublishedLevel]) -> None:
    """Table, Markdown and figure."""
    rows = rows_of(cells, levels)
    columns = [row.columns for row in rows]
    table = {name: [one[name] for one in columns] for name in columns[0]}
    numbers = {f"{cell.member}_{cell.sigma01:g}_{cell.seed}": cell.errors for cell in cells}
    save_figure(stem, ratio_figure(rows, levels), numbers, table)
    text = markdown(title, rows, draw_distances(cells, levels))
    with replacing(stem.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training images, in the official order")
    parser.add_argument("--test", required=True, help="test images")
    parser.add_argument("--published", type=Path, required=True, help="CSV file of the published numbers")
    parser.add_argument("--out", type=Path, default=Path("out/table"), help="folder of the results")
    parser.add_argument("--pool", type=_pool, default=10_000, help="how many training images, or all")
    parser.add_argument("--images", type=_count, help="how many test images; all of them if not given")
    parser.add_argument("--seeds", type=_listed(int), default="0", help="seeds of the noise")
    parser.add_argument("--members", type=_listed(_member), default=",".join(MEMBERS), help="denoisers of the table")
    parser.add_argument("--levels", type=_listed(float), help="noise levels; all of the published ones if not given")
    parser.add_argument("--els-images", type=_count, default=32, help="how many test images ELS is tried on")
    parser.add_argument("--els-levels", type=_listed(float), default=_ELS_LEVELS, help="levels of ELS, among --levels")
    parser.add_argument("--fit-pool", type=_count, default=10_000, help="training images when settings are chosen")
    parser.add_argument("--fit-images", type=_count, default=200, help="images that follow, on which they are chosen")
    parser.add_argument(
        "--rule", choices=["error", "greedy"], default="error", help="how; greedy tries fewer candidates"
    )
    parser.add_argument("--batch", type=_count, default=50, help="images at once")
    return parser


def _listed(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    """What reads a comma list."""

    def read(text: str) -> list[object]:
        try:
            return [kind(part.strip()) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a comma list: {error}") from error

    return read


def _member(text: str) -> str:
    return one_of("a member", text, MEMBERS)


def _count(text: str) -> int:
    try:
        return integer("number", int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are integers from 1") from error


def _pool(text: str) -> int | None:
    return None if text == "all" else _count(text)


if __name__ == "__main__":
    main()
