"""From options to a denoiser."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pspc_rs.cli.options import DENOISERS, Options
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import CFDM, SNIS, Denoiser, Empirical, Gaussian, Network, PSPCFlex, PSPCSquare
from pspc_rs.errors import MissingFileError, ScheduleError
from pspc_rs.heatmaps import gaussian_heatmaps
from pspc_rs.networks.opening import open_network
from pspc_rs.provenance import sha256
from pspc_rs.schedules import PatchSchedule, ThresholdSchedule, resolve_patch_schedule, resolve_threshold_schedule

Model = Denoiser | Network

_DEFAULT_SCHEDULE = "cifar10"
_DEFAULT_SIZE = (32, 32)


def check_options(options: Options) -> None:
    """Refuses what can be refused before any data are read.

    Raises:
        click.UsageError: a network or heat maps that are missing.
        InvalidValueError: the noise grid is not one.
    """
    options.sigmas()
    if options.network is not None and options.network_pkl is not None:
        raise click.UsageError("--network and --network-pkl name a network each; give one of them")
    if options.denoiser == "network" and options.network is None and options.network_pkl is None:
        raise click.UsageError("--denoiser network needs --network, a file, a folder or module:callable")
    if options.denoiser == "pspc_flex" and options.heatmaps is None:
        raise click.UsageError(
            "--denoiser pspc_flex needs --heatmaps FILE, a .npy file [levels, H, W, H, W], or --heatmaps gaussian"
        )


def build_model(options: Options, data: ImageSet) -> Model:
    """The denoiser that the options ask for.

    Raises:
        PspcError: the options do not fit the data.
    """
    match options.denoiser:
        case "gaussian":
            return Gaussian(data, options.rank)
        case "pspc_sq":
            return PSPCSquare(data, _patch_schedule(options, data), device=options.device)
        case "pspc_flex":
            return _flex(options, data)
        case "cfdm" | "snis":
            return _sampled_baseline(options, data)
        case "network":
            return _network(options, data)
        case _:
            return Empirical(data, options.device)


def _network(options: Options, data: ImageSet) -> Network:
    if options.network_pkl is not None and not options.network_pkl.is_file():
        raise MissingFileError(f"there is no file {options.network_pkl}")
    return open_network(
        options.network or options.network_pkl,
        shape=data.shape,
        max_batch=options.batch,
        device=None if options.device == "cpu" else options.device,
        dtype=options.network_dtype,
    )


def _flex(options: Options, data: ImageSet) -> PSPCFlex:
    thresholds = _threshold_schedule(options, data)
    if options.heatmaps == "gaussian":
        maps = gaussian_heatmaps(Gaussian(data), thresholds)
        return PSPCFlex(data, heatmaps=maps, thresholds=thresholds, device=options.device)
    return PSPCFlex(data, heatmaps=options.heatmaps, thresholds=thresholds, device=options.device)


def _sampled_baseline(options: Options, data: ImageSet) -> Model:
    if options.denoiser == "cfdm":
        return CFDM(data, options.smoothing, options.num_noises, options.seed)
    return SNIS(data, options.num_neighbors, options.num_draws, options.seed)


def named_options(specs: Sequence[str], options: Options) -> dict[str, Options]:
    """The options of several denoisers and networks by name, refused where `check_options` refuses them.

    Args:
        specs: each one of `DENOISERS`, or a network, with an optional name before it: "net=unet.json".
        options: what they have in common.

    Raises:
        click.UsageError: something that is neither, two of one name, or what `check_options` raises.
    """
    named: dict[str, Options] = {}
    for spec in specs:
        given, equals, rest = spec.partition("=")
        what = rest if equals else spec
        own = _options_of(what, options)
        check_options(own)
        name = given if equals else own.denoiser if own.network is None else _short_name(what)
        if not name or name in named:
            raise click.UsageError(f"{spec}: the name {name!r} is empty or taken; write NAME={what} with another one")
        named[name] = own
    return named


def _options_of(what: str, options: Options) -> Options:
    denoiser = what.replace("-", "_").lower()
    if denoiser in DENOISERS and denoiser != "network":
        return replace(options, denoiser=denoiser)
    if (":" not in what or Path(what).drive) and not Path(what).exists():
        known = ", ".join(one for one in DENOISERS if one != "network")
        raise click.UsageError(
            f"{what!r} is no denoiser; allowed are {known}, and networks: files, folders, module:callable"
        )
    return replace(options, denoiser="network", network=what)


def _short_name(network: str) -> str:
    path = Path(network)
    # On Windows the colon may be that of a drive.
    return network.rpartition(":")[2] if ":" in network and not path.drive else path.stem


def schedule_of(model: Model) -> PatchSchedule | ThresholdSchedule | None:
    """The schedule a denoiser follows, None if it follows none."""
    return model.schedule if isinstance(model, PSPCSquare | PSPCFlex) else None


def network_of(model: Model) -> dict[str, Any] | None:
    """What identifies a network, None for other denoisers."""
    return model.settings if isinstance(model, Network) else None


def checksums(**files: Path | str | None) -> dict[str, str]:
    """The SHA-256 of every input file that was given; a word in place of a file has none."""
    return {name: sha256(path) for name, path in files.items() if isinstance(path, Path)}


def _patch_schedule(options: Options, data: ImageSet) -> PatchSchedule:
    spec = _or_default(options.patch_sizes, "--patch-sizes", options, data)
    return resolve_patch_schedule(
        spec, (data.height, data.width), sigmas=_own_grid(spec, options), scale_to=options.scale_to
    )


def _threshold_schedule(options: Options, data: ImageSet) -> ThresholdSchedule:
    spec = _or_default(options.thresholds, "--thresholds", options, data)
    # A single threshold stands for every level, and there must be a heat map for each.
    grid = options.sigmas() if isinstance(spec, float) else _own_grid(spec, options)
    return resolve_threshold_schedule(spec, (data.height, data.width), sigmas=grid, scale_to=options.scale_to)


def _or_default(spec: object, option: str, options: Options, data: ImageSet) -> object:
    if spec is not None:
        return spec
    if (data.height, data.width) != _DEFAULT_SIZE and options.scale_to is None:
        raise ScheduleError(
            f"the default schedule is for 32 x 32 images, but these are {data.height} x {data.width}; give {option}, "
            f"or --scale-to {min(data.height, data.width)} to have it scaled"
        )
    return _DEFAULT_SCHEDULE


def _own_grid(spec: object, options: Options) -> object:
    """A list has a noise grid of its own length; names and files bring theirs."""
    return options.sigmas(len(spec)) if isinstance(spec, list) else None
