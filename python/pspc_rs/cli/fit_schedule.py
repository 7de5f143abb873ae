"""`pspc-rs fit-schedule`: the schedule, or the baseline's settings, that come closest to a target."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pspc_rs.cli.commands import Command
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import NoisySource, noisy_options, split_options
from pspc_rs.cli.models import across_ranks, build_model, load_data, on_all_ranks, ranks_fact
from pspc_rs.cli.options import (
    Options,
    named_options,
    options_for_many,
)
from pspc_rs.cli.values import comma_list, file_name
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import Gaussian
from pspc_rs.errors import MissingDependencyError
from pspc_rs.experiments.figures import save_figure
from pspc_rs.experiments.fit_families import Family, Sides, Thresholds, odd_sides
from pspc_rs.experiments.fit_rules import FRACTION, RULES
from pspc_rs.experiments.fitting import ERRORS, Fit, Outside, fit_figure
from pspc_rs.experiments.fitting import fit_schedule as fit
from pspc_rs.experiments.tuning import Tuned, tune_cfdm, tune_snis
from pspc_rs.heatmaps import cached_gaussian_heatmaps
from pspc_rs.outputs import differences, load_record, open_array, plain, save_table
from pspc_rs.progress import Progress
from pspc_rs.provenance import Clock, provenance, save_record
from pspc_rs.schedules import resolve_patch_schedule, resolve_threshold_schedule

_CLEAN = "clean"
_BASELINES = ("cfdm", "snis")
_SMOOTHINGS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_NEIGHBORS = (16, 64, 256, 1024)


def _number(text: str) -> float | str:
    return text if text == "full" else float(text)


@click.command("fit-schedule", cls=Command, ranks=True)
@click.option(
    "--target",
    metavar="NETWORK|clean",
    help="What to come close to: a network, module:callable of the form D(z, sigma), a denoiser's name, or the clean "
    "images behind held-out z (--noise-data). Not for --rule entropy, unless z are on its trajectories.",
)
@click.option(
    "--rule",
    type=click.Choice(RULES),
    default="error",
    help="error: the value of least error. greedy: from the lowest level up, the next larger value while the error "
    "falls. entropy: the smallest value at which the windows' posteriors have a mean entropy of a share of ln N.",
)
@click.option(
    "--error",
    type=click.Choice(ERRORS),
    default="composite",
    help="composite: of denoised images. patch: of the posterior means of single squares, as in the paper's figures; "
    "for sides, and much slower.",
)
@click.option(
    "--entropy-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help=f"That share, for --rule entropy.  [default: {FRACTION:g}]",
)
@click.option(
    "--fit",
    "family",
    type=click.Choice(["pspc_sq", "pspc_flex", "cfdm", "snis"]),
    default="pspc_sq",
    help="Sides of windows, thresholds of --heatmaps, or one setting of a baseline for all levels.",
)
@click.option(
    "--candidates",
    metavar="LIST",
    callback=comma_list(_number, "numbers, such as 3,5,7,full"),
    help="Sides, thresholds, smoothings or numbers of neighbours to try.  [default: a few; every odd side and full for "
    "--rule entropy and greedy]",
)
@click.option(
    "--outside",
    default="nearest",
    metavar="nearest|full|SIDE|NAME|FILE",
    help="What levels out of range get: the nearest fitted value, one value, or those of another schedule.",
)
@click.option("--name", default="fitted", callback=file_name, help="Name of the schedule and its files.")
@click.option(
    "--leave-one-out",
    is_flag=True,
    help="Denoise z made of an image of --data as if it were not in the data; for --process forward.",
)
@noisy_options()
@options_for_many
@across_ranks
def fit_schedule(
    *,
    target: str | None,
    rule: str,
    error: str,
    entropy_fraction: float | None,
    family: str,
    candidates: list[float | str] | None,
    outside: str,
    name: str,
    leave_one_out: bool,
    **others: Any,
) -> None:
    """Fit a schedule: at every noise level the value of least error against a target, or by another rule.

    Writes NAME.json, a schedule as --patch-sizes and --thresholds take it, with its origin and curves; fit.csv, the
    error of every candidate at every level, or fit_entropy.csv, its entropy; and NAME_curves.png, .pdf, .npz and .csv.
    Every number is kept: after an interruption the same command continues. For cfdm and snis, NAME.json holds the
    settings and NAME.csv the errors.
    """
    clock, (options, source) = Clock(), split_options(others)
    _check_rule(rule, entropy_fraction, target, family, source, error=error)
    named = [] if target in (None, _CLEAN) else named_options([str(target)], options).values()
    chosen = next(iter(named), None)
    if family == "pspc_flex" and options.heatmaps is None:
        raise click.UsageError("--fit pspc_flex needs --heatmaps FILE, a .npy file [levels, H, W, H, W], or gaussian")
    if family in _BASELINES and chosen is None:
        raise click.UsageError(f"--fit {family} needs a network or denoiser as its --target")
    data = load_data(options.data, xflip=options.xflip)
    model = None if chosen is None else build_model(chosen, data)
    wanted = source.clean(options, data) if target == _CLEAN else model
    with interruptible_bar("step", "fitting", KEPT) as progress:
        noisy = source.levels(options, data, model, progress)
        own = {"target": target, "fit": family, "candidates": candidates, "leave_one_out": leave_one_out}
        by: dict[str, Any] = {} if rule == "error" else {"rule": rule, "entropy_fraction": entropy_fraction}
        by |= {} if error == "composite" else {"error": error}
        used = {**options.as_dict(), **vars(source), **own, **by}
        origin: dict[str, Any] = {
            "noisy": noisy.settings,
            "noisy_data": source.images(options, data).name,
            **ranks_fact(),
        }
        if target is not None:
            origin["target_spec"] = target
        if family in _BASELINES:
            tuned = _tune(
                family,
                candidates,
                data=data,
                model=model,
                noisy=noisy,
                options=options,
                source=source,
                leave_one_out=leave_one_out,
                progress=progress,
            )
            _save_tuned(
                options.outdir / name, family, tuned, provenance("fit-schedule", used, data=data, clock=clock, **origin)
            )
            return
        fitted = fit(
            _family(family, candidates, options, data, rule).computed_by(on_all_ranks),
            None if rule == "entropy" else wanted,
            noisy,
            options.sigmas(),
            options.outdir / ("fit_entropy.csv" if rule == "entropy" else "fit.csv"),
            rule=rule,
            error=error,
            fraction=entropy_fraction,
            name=name,
            fit_range=source.limits,
            outside=_outside(outside, family, options, data),
            batch=options.batch,
            leave_one_out=leave_one_out,
            record=origin,
            progress=progress,
        )
    _save(options.outdir / name, fitted)
    save_record(options.outdir / f"{name}_run.json", provenance("fit-schedule", used, data=data, clock=clock, **origin))


def _check_rule(
    rule: str, fraction: float | None, target: str | None, family: str, source: NoisySource, *, error: str
) -> None:
    if fraction is not None and rule != "entropy":
        raise click.UsageError("--entropy-fraction is for --rule entropy")
    if error == "patch" and (family != "pspc_sq" or rule == "entropy"):
        raise click.UsageError("--error patch is for --fit pspc_sq, and not for --rule entropy")
    if rule != "error" and family in _BASELINES:
        raise click.UsageError(f"--rule {rule} is for windows and masks; --fit {family} is tuned by its error")
    if rule != "entropy" and target is None:
        raise click.UsageError(f"--rule {rule} needs --target, a network, a denoiser or clean")
    on_trajectories = source.process == "reverse" and source.z is None
    if rule == "entropy" and (target is not None) != on_trajectories:
        raise click.UsageError(
            "--rule entropy compares with no target: give --target with --process reverse, for z on its trajectories, "
            "and leave it out otherwise"
        )


def _family(family: str, candidates: list[Any] | None, options: Options, data: ImageSet, rule: str) -> Family:
    if family == "pspc_sq":
        if candidates is None and rule != "error":
            return Sides(data, odd_sides(data.height, data.width))
        return Sides(data, None if candidates is None else [_integer_if_whole(one) for one in candidates])
    sigmas = options.sigmas().tolist()
    if options.heatmaps == "gaussian":
        maps = cached_gaussian_heatmaps(Gaussian(data), sigmas)
    else:
        maps = open_array(Path(str(options.heatmaps)))
    return Thresholds(data, maps, sigmas, candidates, sizes=options.mask_sizes or "mass")


def _integer_if_whole(value: float | str) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _outside(outside: str, family: str, options: Options, data: ImageSet) -> Outside:
    if outside in ("nearest", "full"):
        return None if outside == "nearest" else outside
    try:
        return float(outside)
    except ValueError:
        size = (data.height, data.width)
        resolve: Callable[..., Any] = resolve_patch_schedule if family == "pspc_sq" else resolve_threshold_schedule
        schedule: Outside = resolve(outside, size, scale_to=options.scale_to)
        return schedule


def _tune(
    family: str,
    candidates: list[Any] | None,
    *,
    data: ImageSet,
    model: Any,
    noisy: Any,
    options: Options,
    source: NoisySource,
    leave_one_out: bool,
    progress: Progress,
) -> Tuned:
    levels = source.chosen_levels(options)
    z, sigmas = [noisy[level] for level, _ in levels], [sigma for _, sigma in levels]
    if leave_one_out and noisy.sources is None:
        raise click.UsageError("--leave-one-out needs --process forward, and no --z: other z are made of no image")
    sources = noisy.sources if leave_one_out else None
    shared: Any = {"seed": options.seed, "batch": options.batch, "sources": sources, "progress": progress}
    if family == "cfdm":
        smoothings = candidates or _SMOOTHINGS
        return tune_cfdm(data, model, z, sigmas, smoothings, num_noises=options.num_noises, **shared)
    neighbors = [_integer_if_whole(one) for one in candidates or _NEIGHBORS]
    return tune_snis(data, model, z, sigmas, neighbors, num_draws=options.num_draws, **shared)


def _save_tuned(stem: Path, family: str, tuned: Tuned, record: dict[str, Any]) -> None:
    save_table(stem.with_name(f"{stem.name}.csv"), tuned.columns)
    path = stem.with_name(f"{stem.name}.json")
    _tell_if_replaced(path, load_record(path).get("options"), record["options"])
    save_record(path, {"denoiser": family, **tuned.best, **record})
    click.echo(" ".join(f"--{option.replace('_', '-')} {value:g}" for option, value in tuned.best.items()))
    click.echo(path)


def _tell_if_replaced(path: Path, earlier: object, now: dict[str, Any]) -> None:
    """Says so if a file of another fit is replaced; its errors are still in the table."""
    changes = differences(earlier, now) if isinstance(earlier, dict) else ""
    if changes:
        click.echo(f"{path} is replaced, it had other settings: {changes}", err=True)


def _save(stem: Path, fitted: Fit) -> None:
    path = stem.with_name(f"{stem.name}.json")
    earlier = load_record(path).get("provenance")
    if isinstance(earlier, dict):
        _tell_if_replaced(path, earlier.get("fitted"), plain(fitted.schedule.provenance)["fitted"])
    fitted.schedule.save(path)
    for sigma, measure in zip(fitted.sigmas, fitted.chosen, strict=True):
        click.echo(f"{sigma:9.4g}  {fitted.family} {fitted.schedule.at(sigma)!s:>4}  {fitted.measure} {measure:.4g}")
    click.echo(path)
    table: dict[str, list[Any]] = {"sigma": list(fitted.sigmas)}
    for value, curve in zip(fitted.values, fitted.curves.T.tolist(), strict=True):
        table[f"{fitted.measure}_{value:g}"] = ["" if math.isnan(one) else one for one in curve]
    numbers = {name: getattr(fitted, name) for name in ("sigmas", "values", "standard_error")}
    numbers[fitted.measure] = fitted.curves
    try:
        figure = fit_figure(fitted)
    except MissingDependencyError as error:
        click.echo(f"No figure is drawn: {error}", err=True)
        save_table(stem.with_name(f"{stem.name}_curves.csv"), table)
        return
    for written in save_figure(stem.with_name(f"{stem.name}_curves"), figure, numbers, table):
        click.echo(written)
