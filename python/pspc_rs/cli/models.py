"""The data and the denoiser that the options of a command describe, and what decides its numbers."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.commands import uses_cache
from pspc_rs.cli.crew import crew_of_command, current_crew
from pspc_rs.cli.options import FILTERED_DENOISERS, Options, options_of
from pspc_rs.data import ImageSet, load
from pspc_rs.denoisers import (
    BBELS,
    CFDM,
    ELS,
    LS,
    SNIS,
    Denoiser,
    Empirical,
    Gaussian,
    Network,
    PCALocality,
    Piecewise,
    PosteriorComposite,
    PSPCFlex,
    PSPCSquare,
    SoftPSPC,
)
from pspc_rs.denoisers.centred import CentredDenoiser
from pspc_rs.errors import InvalidValueError, MissingFileError, ScheduleError
from pspc_rs.heatmaps import cached_gaussian_heatmaps, gaussian_heatmaps
from pspc_rs.heatmaps.maps import MomentsOf
from pspc_rs.networks.opening import open_network, program_in
from pspc_rs.progress import ProgressBar
from pspc_rs.provenance import describe_data, machine_settings, sha256
from pspc_rs.ranks import num_ranks
from pspc_rs.reprs import a_few
from pspc_rs.schedules import PatchSchedule, ThresholdSchedule, resolve_patch_schedule, resolve_threshold_schedule

BuiltModel: TypeAlias = Denoiser | Network | Piecewise

Model = TypeVar("Model", bound=BuiltModel)
Function = TypeVar("Function", bound=Callable[..., Any])

_SECONDS_BEFORE_BAR = 1.0
_DEFAULT_SCHEDULE = "cifar10"
_DEFAULT_SIZE = (32, 32)
# The location of files does not decide the numbers; schedules, heat maps and data are compared by their content.
_NOT_SETTINGS = (
    *("outdir", "device", "data", "heatmaps", "patch_sizes", "thresholds", "scale_to", "network_pkl", "parts"),
    "trust",
)


def load_data(name: str, **options: Any) -> ImageSet:
    """The data set of a path or name; progress is shown if it takes a while.

    Args:
        name: path or name.
        options: of `pspc_rs.load`.
    """
    crew = current_crew()
    return _load(name, **options) if crew is None else crew.load(name, options)


def _load(name: str, **options: Any) -> ImageSet:
    with ProgressBar("img", f"loading {name}", delay=_SECONDS_BEFORE_BAR) as progress:
        return load(name, progress=progress, cache=uses_cache(), **options)


def across_ranks(command: Function) -> Function:
    """A command that under ``torchrun`` the first rank runs, while the others compute with it."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        if num_ranks() == 1:
            command(**options)
            return
        with crew_of_command(_load, _build) as runs:
            if runs:
                command(**options)

    return cast(Function, run)


def ranks_fact() -> dict[str, Any]:
    """What records say of the ranks: nothing if there is only one."""
    return {} if num_ranks() == 1 else {"world_size": num_ranks()}


def build_model(options: Options, data: ImageSet) -> BuiltModel:
    """The denoiser that the options ask for.

    Raises:
        PspcError: the options do not fit the data.
    """
    return on_all_ranks(_build(options, data))


def build_map_source(options: Options, data: ImageSet) -> tuple[BuiltModel, MomentsOf | None]:
    """A denoiser for heat maps, and what computes their moments on the ranks of the command, if there are several."""
    crew = current_crew()
    return (_build(options, data), None) if crew is None else (crew.build(options, data), crew.map_moments)


def on_all_ranks(model: Model) -> Model:
    """A denoiser across the ranks of the command; as it is where there is only one, or it is not of the engine."""
    crew = current_crew()
    if crew is None:
        return model
    if isinstance(model, Piecewise):
        return cast(Model, Piecewise([(low, high, on_all_ranks(part)) for low, high, part in model.parts]))
    return crew.adopt(model) if isinstance(model, PosteriorComposite) else model


def _build(options: Options, data: ImageSet) -> BuiltModel:
    builders: dict[str, Callable[[Options, ImageSet], BuiltModel]] = {
        "gaussian": build_gaussian,
        "pspc_sq": _square,
        "pspc_flex": _flex,
        "cfdm": _sampled_baseline,
        "snis": _sampled_baseline,
        "network": _network,
        "piecewise": _piecewise,
    }
    return builders.get(options.denoiser, _filtered)(options, data)


def build_gaussian(options: Options, data: ImageSet) -> Gaussian:
    """The Gaussian denoiser that the options describe.

    Raises:
        PspcError: the options do not fit the data.
    """
    return Gaussian(
        data,
        options.rank,
        variance_floor=options.variance_floor,
        shrinkage=options.shrinkage,
        cache=uses_cache(),
    )


def _network(options: Options, data: ImageSet) -> Network:
    if options.network_pkl is not None and not options.network_pkl.is_file():
        raise MissingFileError(f"there is no file {options.network_pkl}")
    source = options.network or options.network_pkl
    warn_of_program(None if options.trust else program_in(source))
    return open_network(
        source,
        shape=data.shape,
        max_batch=options.batch,
        device=None if options.device == "cpu" else options.device,
        dtype=options.network_dtype,
        trust=True,
    )


def _piecewise(options: Options, data: ImageSet) -> Piecewise:
    parts = options.parts or []
    return Piecewise([(low, high, _build(options_of(what, options), data)) for what, low, high in parts])


def warn_of_program(program: str | None) -> None:
    """Says on stderr that a file's program is run without --trust, which a later version will not do.

    Args:
        program: which one, as a sentence; None for none.
    """
    if program is not None:
        click.echo(f"Warning: {program}; give --trust if you trust it, as a later version will ask for", err=True)


def _square(options: Options, data: ImageSet) -> PSPCSquare:
    schedule = _patch_schedule(options, data)
    return PSPCSquare(data, schedule, device=options.device, temperature=options.temperature)


def _flex(options: Options, data: ImageSet) -> PSPCFlex:
    thresholds = _threshold_schedule(options, data)
    if options.heatmaps == "gaussian":
        make_maps = cached_gaussian_heatmaps if uses_cache() else gaussian_heatmaps
        maps: Any = make_maps(Gaussian(data, cache=uses_cache()), thresholds)
    else:
        maps = options.heatmaps
    return PSPCFlex(data, heatmaps=maps, thresholds=thresholds, device=options.device, temperature=options.temperature)


def _filtered(options: Options, data: ImageSet) -> PosteriorComposite:
    """A denoiser whose components weigh pixels in their own way, or the empirical one, which weighs all alike."""
    further: dict[str, Any] = {"device": options.device, "temperature": options.temperature}
    if options.denoiser not in FILTERED_DENOISERS:
        return Empirical(data, **further)
    if options.denoiser == "soft" and options.width is not None:
        return SoftPSPC(data, options.width, **further)
    if options.denoiser == "pca":
        return PCALocality(data, options.pca_threshold, **further)
    spec = _or_default(options.patch_sizes, "--patch-sizes", options, data)
    members: dict[str, type[LS | ELS | BBELS]] = {"ls": LS, "els": ELS, "bbels": BBELS}
    member = members[options.denoiser]
    if isinstance(spec, str):
        return member(data, spec, scale_to=options.scale_to, **further)
    return member(
        data, window_sizes=cast(Any, spec), sigmas=_own_grid(spec, options), scale_to=options.scale_to, **further
    )


def _sampled_baseline(options: Options, data: ImageSet) -> BuiltModel:
    if options.denoiser == "cfdm":
        return CFDM(data, options.smoothing, options.num_noises, options.seed)
    return SNIS(data, options.num_neighbors, options.num_draws, options.seed)


def class_labels(options: Options, model: BuiltModel, data: ImageSet, num: int) -> NDArray[Any] | None:
    """The labels of so many images of the class that the options ask for, as the model takes them; None for none.

    Raises:
        InvalidValueError: there is no such class.
    """
    label = options.class_label
    if label is None:
        return None
    if not isinstance(model, Network):
        classes = [] if data.classes is None else data.classes.tolist()
        if label not in classes:
            known = f"its labels are {a_few(classes, 20)}" if classes else "it has no labels"
            raise InvalidValueError(f"--class is {label}, which no image of {data.name} has; {known}")
        return np.full(num, label)
    if not 0 <= label < model.label_dim:
        known = f"allowed are 0 to {model.label_dim - 1}" if model.label_dim else "the network has no classes"
        raise InvalidValueError(f"--class is {label}; {known}")
    rows = np.zeros((num, model.label_dim), np.float32)
    rows[:, label] = 1
    return rows


def schedule_of(model: BuiltModel) -> PatchSchedule | ThresholdSchedule | None:
    """The schedule a denoiser follows, None if it follows none."""
    return model.schedule if isinstance(model, PSPCSquare | PSPCFlex | CentredDenoiser) else None


def network_of(model: BuiltModel) -> dict[str, Any] | None:
    """What identifies a network, or the parts of a piecewise denoiser; None for other denoisers."""
    return model.settings if isinstance(model, Network | Piecewise) else None


def checksums(**files: Path | str | None) -> dict[str, str]:
    """The SHA-256 of every input file that was given; None and words are left out."""
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
    return resolve_threshold_schedule(
        spec, (data.height, data.width), sigmas=grid, scale_to=options.scale_to, sizes=options.mask_sizes
    )


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
    """The grid of a list, which has as many levels as the list; names and files have their own."""
    return options.sigmas(len(spec)) if isinstance(spec, list) else None


def run_settings(options: Options, data: ImageSet, **facts: object) -> dict[str, Any]:
    """Everything that decides the bytes of an output.

    Args:
        options: of the command.
        data: the training images.
        facts: what is known of the denoiser and of other inputs.
    """
    chosen = {name: value for name, value in options.as_dict().items() if name not in _NOT_SETTINGS}
    # Which GPU it is plays no part, but a GPU rounds otherwise than a CPU.
    device = options.device.partition(":")[0]
    return {**chosen, "device": device, "data": describe_data(data), **facts, **machine_settings()}
