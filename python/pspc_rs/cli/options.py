"""The options that commands share, and the denoiser that they describe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs import cuda
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import CFDM, SNIS, Denoiser, Empirical, Gaussian, Network, PSPCFlex, PSPCSquare
from pspc_rs.errors import MissingFileError, PspcError, ScheduleError
from pspc_rs.heatmaps import gaussian_heatmaps
from pspc_rs.networks.opening import open_network, program_in
from pspc_rs.provenance import sha256
from pspc_rs.schedules import PatchSchedule, ThresholdSchedule, resolve_patch_schedule, resolve_threshold_schedule
from pspc_rs.sigmas import edm_sigmas

Command = TypeVar("Command", bound=Callable[..., Any])
BuiltModel: TypeAlias = Denoiser | Network

DENOISERS = ("empirical", "network", "gaussian", "pspc_sq", "pspc_flex", "cfdm", "snis")

_MAX_SEED = 2**32 - 1
_DEFAULT_SCHEDULE = "cifar10"
_DEFAULT_SIZE = (32, 32)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The values of the options, given or default, under the names of the options.

    Attributes:
        heatmaps: a file, or "gaussian" for those of the Gaussian denoiser.
        patch_sizes: a side, a list of sides, or the name or file of a schedule.
        thresholds: a number, a list of numbers, or the name or file of a schedule.
    """

    outdir: Path
    data: str
    denoiser: str = "empirical"
    xflip: bool
    n_samples: int
    batch: int
    seed: int
    n_steps: int
    t_max: float
    t_min: float
    rho: float
    patch_sizes: int | str | list[int | str] | None = None
    scale_to: int | None = None
    heatmaps: Path | str | None = None
    thresholds: float | str | list[float] | None = None
    rank: int | None = None
    smoothing: float = 0.7
    num_noises: int = 8
    num_neighbors: int = 2048
    num_draws: int = 256
    network: str | None = None
    network_pkl: Path | None = None
    network_dtype: str = "float32"
    trust: bool = False
    device: str

    def sigmas(self, num_steps: int | None = None, *, include_zero: bool = False) -> NDArray[np.float64]:
        """The noise grid of the run, or one of another length with the same ends and curvature."""
        steps = self.n_steps if num_steps is None else num_steps
        return edm_sigmas(steps, self.t_min, self.t_max, self.rho, include_zero=include_zero)

    def batches(self) -> list[slice]:
        """The samples cut into batches."""
        ends = range(0, self.n_samples, self.batch)
        return [slice(start, min(start + self.batch, self.n_samples)) for start in ends]

    def as_dict(self) -> dict[str, Any]:
        """Every option by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def input_file() -> click.Path:
    """The type of an option that names a file which must exist."""
    return click.Path(exists=True, dir_okay=False, path_type=Path)


def listed(context: click.Context, option: click.Parameter, value: Sequence[str] | str | None) -> list[str]:
    """The entries of one comma list, of several or of none."""
    texts = [value] if isinstance(value, str) else value or []
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def comma_list(convert: Callable[[str], Any], what: str) -> Callable[..., Any]:
    """The callback of an option that takes a comma list.

    Args:
        convert: makes an entry of its text; raises ValueError where it cannot.
        what: what the entries are, for the message: "integers, such as 0,3,5".
    """

    def read(context: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
        if value is None:
            return None
        try:
            return [convert(word.strip()) for word in value.split(",")]
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a comma list of {what}") from error

    return read


def read_pixel(text: str) -> tuple[int, int]:
    """A pixel written as Y,X.

    Raises:
        click.BadParameter: this is not a pixel.
    """
    try:
        y, x = (int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a pixel; write Y,X") from error
    return y, x


def output_folder(purpose: str = "Folder for the files.") -> Callable[[Command], Command]:
    """The option --outdir."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--outdir", type=kind, required=True, help=purpose)


def shared_options(command: Command) -> Command:
    """Adds the options of `Options` to a command, which receives them as keyword arguments."""
    return _with((*_RUN, *_CHOICE, *_GRID, *_DATA, *_DENOISER, *_NETWORK, TRUST), command)


def options_for_many(command: Command) -> Command:
    """Adds the options of `Options` to a command for several denoisers, without --denoiser and --n-samples."""
    return _with((*_RUN, *_GRID, *_DATA, *_DENOISER, TRUST), command)


def data_options(command: Command) -> Command:
    """Adds the options of `Options` that concern data and noise only."""
    return _with((*_RUN, *_GRID, *_DATA), command)


def network_options(command: Command) -> Command:
    """Adds the options of `Options` that concern data, noise and a network."""
    return _with((*_RUN, *_GRID, *_DATA, *_NETWORK, TRUST), command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _device(context: click.Context, option: click.Parameter, value: str) -> str:
    """The device with its number; "auto" is resolved here, so that records name the device that was used."""
    try:
        ordinal = cuda.resolve(value)
    except PspcError as error:
        raise click.BadParameter(str(error)) from error
    return "cpu" if ordinal is None else f"cuda:{ordinal}"


def _sides(context: click.Context, option: click.Parameter, value: str | None) -> int | str | list[int | str] | None:
    """A side or a list of sides if the text is one, else the name or file of a schedule, unchanged."""
    words = [] if value is None else [word.strip() for word in value.split(",")]
    if value is None or not all(word.isdecimal() or word == "full" for word in words):
        return value
    sides: list[int | str] = [int(word) if word.isdecimal() else word for word in words]
    return sides if len(sides) > 1 else sides[0]


def _shares(context: click.Context, option: click.Parameter, value: str | None) -> float | str | list[float] | None:
    """A threshold or a list of them if the text is one, else the name or file of a schedule, unchanged."""
    if value is None:
        return None
    try:
        thresholds = [float(word) for word in value.split(",")]
    except ValueError:
        return value
    return thresholds if len(thresholds) > 1 else thresholds[0]


def _heatmaps(context: click.Context, option: click.Parameter, value: str | None) -> Path | str | None:
    """A file that exists, or "gaussian", which needs none."""
    return value if value in (None, "gaussian") else Path(str(input_file().convert(value, option, context)))


_COUNT = click.IntRange(min=1)

_RUN = (output_folder("Folder for the outputs; made if it is not there."),)

_CHOICE = (
    click.option(
        "--denoiser",
        type=click.Choice(DENOISERS),
        metavar="|".join(DENOISERS),
        default="empirical",
        help="Which denoiser.",
    ),
    click.option("--n-samples", type=_COUNT, default=50, help="How many images."),
)

_GRID = (
    click.option("--batch", type=_COUNT, default=50, help="How many images at once."),
    click.option("--seed", type=click.IntRange(0, _MAX_SEED), default=0, help="Seed of what is drawn."),
    click.option("--n-steps", type=_COUNT, default=18, help="Length of the noise grid."),
    click.option("--t-max", type=float, default=80.0, help="First noise level of the grid."),
    click.option("--t-min", type=float, default=0.002, help="Last noise level of the grid."),
    click.option("--rho", type=float, default=7.0, help="Curvature of the grid."),
    click.option("--device", default="cpu", metavar="cpu|cuda|cuda:N|auto", callback=_device, help="Where to compute."),
)

_DATA = (
    click.option(
        "--data", required=True, metavar="PATH|NAME", help="Training images: a path, or a name such as cifar10."
    ),
    click.option("--xflip/--no-xflip", default=True, help="Count horizontal flips as further data."),
)

_DENOISER = (
    click.option(
        "--patch-sizes",
        metavar="LIST|NAME|FILE",
        callback=_sides,
        help="pspc_sq: one side, a comma list with one per noise level, a published schedule or the JSON file of one. "
        "[default: cifar10, for 32 x 32 images]",
    ),
    click.option(
        "--scale-to", type=_COUNT, metavar="SIDE", help="Scale a schedule made for other images to this image side."
    ),
    click.option(
        "--heatmaps",
        metavar="FILE|gaussian",
        callback=_heatmaps,
        help="pspc_flex: heat maps, .npy [levels, H, W, H, W], or those of the Gaussian denoiser.",
    ),
    click.option(
        "--thresholds",
        metavar="LIST|NAME|FILE",
        callback=_shares,
        help="pspc_flex: one threshold, a comma list with one per noise level, a published schedule or the JSON file "
        "of one. [default: cifar10, for 32 x 32 images]",
    ),
    click.option("--rank", type=_COUNT, help="gaussian: directions to keep.  [default: all]"),
    click.option("--smoothing", type=click.FloatRange(min=0), default=0.7, help="cfdm: strength of the perturbations."),
    click.option("--num-noises", type=_COUNT, default=8, help="cfdm: number of perturbations."),
    click.option("--num-neighbors", type=_COUNT, default=2048, help="snis: images with their exact weight."),
    click.option("--num-draws", type=_COUNT, default=256, help="snis: images drawn per query."),
)

TRUST = click.option(
    "--trust",
    is_flag=True,
    help="network: run the program that a TorchScript file holds, or that a .json file names as an import path.",
)

_NETWORK = (
    click.option(
        "--network",
        metavar="FILE|FOLDER|MODULE:CALLABLE",
        help="network: a network file (safetensors, TorchScript, EDM pickle, or .json that describes one), a folder of "
        "diffusers, or the import path of a function D(z, sigma) or torch module.",
    ),
    click.option("--network-pkl", type=input_file(), help="network: a pickle of EDM, of which nothing is executed."),
    click.option(
        "--network-dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        help="network: precision in which it computes.",
    ),
)


def check_options(options: Options) -> None:
    """Checks everything that can be checked before data are read.

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


def build_model(options: Options, data: ImageSet) -> BuiltModel:
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


def warn_of_program(program: str | None) -> None:
    """Says on stderr that a file's program is run without --trust, which a later version will not do.

    Args:
        program: which one, as a sentence; None for none.
    """
    if program is not None:
        click.echo(f"Warning: {program}; give --trust if you trust it, as a later version will ask for", err=True)


def _flex(options: Options, data: ImageSet) -> PSPCFlex:
    thresholds = _threshold_schedule(options, data)
    if options.heatmaps == "gaussian":
        maps = gaussian_heatmaps(Gaussian(data), thresholds)
        return PSPCFlex(data, heatmaps=maps, thresholds=thresholds, device=options.device)
    return PSPCFlex(data, heatmaps=options.heatmaps, thresholds=thresholds, device=options.device)


def _sampled_baseline(options: Options, data: ImageSet) -> BuiltModel:
    if options.denoiser == "cfdm":
        return CFDM(data, options.smoothing, options.num_noises, options.seed)
    return SNIS(data, options.num_neighbors, options.num_draws, options.seed)


def named_options(specs: Sequence[str], options: Options) -> dict[str, Options]:
    """The options of several denoisers and networks by name, each checked by `check_options`.

    Args:
        specs: each one of `DENOISERS`, or a network, with an optional name before it: "net=unet.json".
        options: what they have in common.

    Raises:
        click.UsageError: an entry is neither, two have one name, or `check_options` refuses one.
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
            f"{what!r} is not a denoiser; allowed are {known}, and networks: files, folders, module:callable"
        )
    return replace(options, denoiser="network", network=what)


def _short_name(network: str) -> str:
    path = Path(network)
    # On Windows the colon may be that of a drive.
    return network.rpartition(":")[2] if ":" in network and not path.drive else path.stem


def schedule_of(model: BuiltModel) -> PatchSchedule | ThresholdSchedule | None:
    """The schedule a denoiser follows, None if it follows none."""
    return model.schedule if isinstance(model, PSPCSquare | PSPCFlex) else None


def network_of(model: BuiltModel) -> dict[str, Any] | None:
    """What identifies a network, None for other denoisers."""
    return model.settings if isinstance(model, Network) else None


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
    """The grid of a list, which has as many levels as the list; names and files have their own."""
    return options.sigmas(len(spec)) if isinstance(spec, list) else None
