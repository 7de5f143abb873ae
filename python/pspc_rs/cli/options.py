"""The options that commands share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs import cuda
from pspc_rs.cli.commands import NO_CACHE, DecidingOption, ignored_options, option_group, set_meta
from pspc_rs.cli.values import (
    input_file,
    read_heatmaps,
    read_parts,
    read_shares,
    read_shrinkage,
    read_sides,
)
from pspc_rs.errors import InvalidValueError, PspcError
from pspc_rs.networks.shipped import SHIPPED
from pspc_rs.samplers import PROTOCOLS
from pspc_rs.schedules import MaskSizes
from pspc_rs.sigmas import edm_sigmas, log_sigmas

Command = TypeVar("Command", bound=Callable[..., Any])

_LATER = {
    "temperature": 1.0,
    "class_label": None,
    "pca_threshold": 0.05,
    "width": None,
    "variance_floor": None,
    "shrinkage": None,
    "parts": None,
    "protocol": None,
    "mask_sizes": None,
    "spacing": "edm",
}
"""Options that were added later, and the values with which they change nothing."""

CENTRED_DENOISERS = ("ls", "els", "bbels")
"""Those that compare on a square around every pixel."""

FILTERED_DENOISERS = (*CENTRED_DENOISERS, "soft", "pca")
"""Those whose components have a precision and a response of their own."""

DENOISERS = (
    *("empirical", "network", "gaussian", "pspc_sq", "pspc_flex", "cfdm", "snis"),
    *FILTERED_DENOISERS,
    "piecewise",
)

POSTERIOR_DENOISERS = ("empirical", "pspc_sq", "pspc_flex", *FILTERED_DENOISERS)
"""Those whose posteriors over training images can be asked for."""

EXPLAINED_DENOISERS = tuple(name for name in POSTERIOR_DENOISERS if name not in ("els", "bbels"))
"""Those whose posteriors are over training images in place, which a page can show."""

DEFAULT_N = 50
"""How many images a command takes."""

_run, _denoiser, _data = option_group("Run"), option_group("Denoiser"), option_group("Data")
_grid, _network_option = option_group("Noise levels"), option_group("Network")

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """The values of the options, given or default, under the names of the options.

    Attributes:
        protocol: name of one that decides the noise levels and what sampling starts from, beside n_steps, t_max and
            t_min, which are then its own.
        heatmaps: a file, or "gaussian" for those of the Gaussian denoiser.
        patch_sizes: a side, a list of sides, or the name or file of a schedule.
        thresholds: a number, a list of numbers, or the name or file of a schedule.
        mask_sizes: what thresholds are shares of; None for what the schedule says.
        class_label: of all images, None for all classes.
        parts: of the piecewise denoiser: a denoiser or network each, with the ends of its range, None where open.
    """

    outdir: Path
    data: str
    denoiser: str = "empirical"
    xflip: bool
    n_samples: int
    batch: int = 50
    seed: int
    n_steps: int
    t_max: float
    t_min: float
    rho: float
    spacing: str = "edm"
    protocol: str | None = None
    patch_sizes: int | str | list[int | str] | None = None
    scale_to: int | None = None
    heatmaps: Path | str | None = None
    thresholds: float | str | list[float] | None = None
    mask_sizes: MaskSizes | None = None
    width: float | None = None
    pca_threshold: float = 0.05
    rank: int | None = None
    variance_floor: float | None = None
    shrinkage: float | str | None = None
    smoothing: float = 0.7
    num_noises: int = 8
    num_neighbors: int = 2048
    num_draws: int = 256
    network: str | None = None
    network_pkl: Path | None = None
    network_dtype: str = "float32"
    trust: bool = False
    device: str = "cpu"
    temperature: float = 1.0
    class_label: int | None = None
    parts: list[tuple[str, float | None, float | None]] | None = None

    def sigmas(self, num_steps: int | None = None, *, include_zero: bool = False) -> NDArray[np.float64]:
        """The noise grid of the run, or one of another length with the same ends and curvature.

        Raises:
            InvalidValueError: the grid is not one, or a protocol has none of that length.
        """
        steps = self.n_steps if num_steps is None else num_steps
        if self.protocol is None and self.spacing == "log":
            return log_sigmas(steps, self.t_min, self.t_max, include_zero=include_zero)
        if self.protocol is None:
            return edm_sigmas(steps, self.t_min, self.t_max, self.rho, include_zero=include_zero)
        if steps != self.n_steps:
            raise InvalidValueError(
                f"a list has {steps} values; --protocol {self.protocol} has {self.n_steps} noise levels"
            )
        return PROTOCOLS[self.protocol].grid(include_zero=include_zero)

    @property
    def start_scale(self) -> float:
        """Standard deviation of the noise that sampling starts from."""
        return self.t_max if self.protocol is None else PROTOCOLS[self.protocol].start_scale

    def batches(self) -> list[slice]:
        """The samples cut into batches."""
        ends = range(0, self.n_samples, self.batch)
        return [slice(start, min(start + self.batch, self.n_samples)) for start in ends]

    def as_dict(self) -> dict[str, Any]:
        """Every option by name; a protocol with its noise levels, and without the curvature that none has.

        Options that were added later are left out where they change nothing, as commands without them do.
        """
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        kept = {name: value for name, value in given.items() if name not in _LATER or value != _LATER[name]}
        if self.protocol is not None:
            kept["protocol"] = PROTOCOLS[self.protocol].settings
            del kept["rho"]
        return kept


def output_folder(purpose: str = "Folder for the files.") -> Callable[[Command], Command]:
    """The option --outdir."""
    kind = click.Path(file_okay=False, path_type=Path)
    option: Callable[[Command], Command] = _run("--outdir", type=kind, required=True, help=purpose)
    return option


def n_option(
    help_text: str = "How many images.", *, least: int = 1, default: int = DEFAULT_N
) -> Callable[[Command], Command]:
    """The option --n-samples, or --n."""
    option: Callable[[Command], Command] = _run(
        "--n-samples", "--n", type=click.IntRange(min=least), default=default, help=help_text
    )
    return option


def denoiser_option(allowed: Sequence[str] = DENOISERS) -> Callable[[Command], Command]:
    """The option --denoiser."""
    option: Callable[[Command], Command] = _denoiser(
        "--denoiser",
        type=click.Choice(allowed),
        metavar="|".join(allowed),
        default="empirical",
        help="Which denoiser.",
    )
    return option


def shared_options(command: Command) -> Command:
    """Adds the options of `Options` to a command that writes one output, and --overwrite."""
    chosen = (denoiser_option(), *_COMPOSITE, *_FILTERED, TEMPERATURE, *_BASELINES, _PARTS, CLASS, *_NETWORK)
    return _with((*_SINGLE, *_GRID, *_DATA, *chosen), command)


def posterior_options(command: Command) -> Command:
    """Adds the options of `Options` to a command for denoisers with posteriors over images, without --n-samples."""
    windows = [one for one in _COMPOSITE if one not in _GAUSSIAN]
    chosen = (denoiser_option(EXPLAINED_DENOISERS), *windows, *_FILTERED, TEMPERATURE, CLASS)
    return _with((_OUTDIR, _SEED, _DEVICE, *_GRID, *_DATA, *chosen), command)


def plan_options(command: Command) -> Command:
    """Adds the options of `Options` that decide what a call of a denoiser with posteriors over images costs."""
    windows = [one for one in _COMPOSITE if one not in _GAUSSIAN]
    chosen = (denoiser_option(POSTERIOR_DENOISERS), *windows, *_FILTERED, TEMPERATURE)
    return _with((_SEED, _DEVICE, *_GRID, *_DATA, *chosen), command)


def source_options(command: Command) -> Command:
    """Adds the options of `Options` to a command for denoisers that have heat maps, and --overwrite."""
    allowed = [name for name in DENOISERS if name not in ("cfdm", "snis", "piecewise", *FILTERED_DENOISERS)]
    return _with((*_SINGLE, *_GRID, *_DATA, denoiser_option(allowed), *_COMPOSITE, *_NETWORK), command)


def options_for_many(command: Command) -> Command:
    """Adds the options of `Options` to a command for several denoisers, without --denoiser and --n-samples."""
    chosen = (*_COMPOSITE, *_FILTERED, *_BASELINES, _PARTS, TRUST)
    return _with((_OUTDIR, _SEED, *_COMPUTING, *_GRID, *_DATA, *chosen), command)


def explorer_options(command: Command) -> Command:
    """Adds the options of `Options` to a command for several denoisers that writes nothing."""
    chosen = (*_COMPOSITE, *_FILTERED, *_BASELINES, _PARTS, TRUST)
    return _with((_SEED, *_COMPUTING, *_GRID, *_DATA, *chosen), command)


def data_options(command: Command) -> Command:
    """Adds the options of `Options` that concern data and noise only, and --overwrite."""
    unused = ignored_options("--batch", "--device", reason="nothing is computed in batches here; leave it out")
    return _with((unused, _RESUME, _OUTDIR, n_option(), _SEED, _OVERWRITE, *_GRID, *_DATA), command)


def with_data(command: Command) -> Command:
    """Adds --data and --xflip to a command."""
    return _with(_DATA, command)


def network_options(command: Command) -> Command:
    """Adds the options of `Options` that concern data, noise and a network, and --overwrite."""
    return _with((*_SINGLE, *_GRID, *_DATA, *_NETWORK), command)


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


_COUNT = click.IntRange(min=1)

_OUTDIR = output_folder("Folder for the outputs; made if it is not there.")

_OVERWRITE = _run("--overwrite", is_flag=True, help="Replace an output that has other settings.")

_SEED = _run("--seed", type=click.IntRange(0, _MAX_SEED), default=0, help="Seed of what is drawn.")

_DEVICE = _run(
    "--device",
    default="auto",
    metavar="auto|cpu|cuda|cuda:N",
    callback=_device,
    help="Where to compute; auto is a GPU where there is one.",
)

_COMPUTING = (_run("--batch", type=_COUNT, default=50, help="How many images at once."), _DEVICE)

_RESUME = ignored_options("--resume", reason="a run is always continued; leave it out")

_SINGLE = (_RESUME, _OUTDIR, n_option(), _SEED, *_COMPUTING, _OVERWRITE)


def _decided(protocol: str) -> dict[str, Any]:
    """What a protocol says instead of the options of the noise grid and of samplers."""
    one = PROTOCOLS[protocol]
    # EDM's protocols have this rho; the others have none, and refuse one all the same.
    levels: dict[str, Any] = {"n_steps": one.num_steps, "t_max": one.sigmas[0], "t_min": one.sigmas[-2], "rho": 7.0}
    levels["spacing"] = "edm"
    return {**levels, "sampler": one.sampler}


PROTOCOL = _grid(
    "--protocol",
    cls=DecidingOption,
    decide=_decided,
    type=click.Choice(list(PROTOCOLS)),
    metavar="|".join(PROTOCOLS),
    help="Noise levels of a published protocol, its sampler and the scale of its initial noise, in place of --n-steps, "
    "--t-max, --t-min, --rho and --sampler.",
)

_GRID = (
    PROTOCOL,
    _grid("--n-steps", type=_COUNT, default=18, help="Length of the noise grid."),
    _grid("--t-max", type=float, default=80.0, help="First noise level of the grid."),
    _grid("--t-min", type=float, default=0.002, help="Last noise level of the grid."),
    _grid("--rho", type=float, default=7.0, help="Curvature of the grid."),
    _grid(
        "--spacing",
        type=click.Choice(["edm", "log"]),
        default="edm",
        help="edm: the grid of Karras et al. with --rho. log: evenly spaced in log sigma, as in Figure 2 of the paper.",
    ),
)

NO_CACHE_OPTION = _data(
    "--no-cache",
    is_flag=True,
    expose_value=False,
    callback=set_meta(NO_CACHE),
    show_default=False,
    help="Take neither decoded images nor statistics of data from the cache folder, and keep none there.",
)

_DATA = (
    _data("--data", required=True, metavar="PATH|NAME", help="Training images: a path, or a name such as cifar10."),
    _data("--xflip/--no-xflip", default=True, help="Count horizontal flips as further data; also --xflip=False."),
    NO_CACHE_OPTION,
)

_GAUSSIAN = (
    _denoiser("--rank", type=_COUNT, help="gaussian: directions to keep.  [default: all]"),
    _denoiser(
        "--variance-floor",
        type=click.FloatRange(min=0, min_open=True),
        help="gaussian: the least variance in every direction, for few images.  [default: none]",
    ),
    _denoiser(
        "--shrinkage",
        metavar="NUMBER|ledoit-wolf",
        callback=read_shrinkage,
        help="gaussian: how far the covariance is moved towards a multiple of the identity, 0 to 1, for few images.  "
        "[default: 0]",
    ),
)

_COMPOSITE = (
    _denoiser(
        "--patch-sizes",
        metavar="LIST|NAME|FILE",
        callback=read_sides,
        help="pspc_sq, ls, els, bbels: one side, a comma list with one per noise level, a published schedule or "
        "the JSON file of one. "
        "[default: cifar10, for 32 x 32 images]",
    ),
    _denoiser(
        "--scale-to", type=_COUNT, metavar="SIDE", help="Scale a schedule made for other images to this image side."
    ),
    _denoiser(
        "--heatmaps",
        metavar="FILE|gaussian",
        callback=read_heatmaps,
        help="pspc_flex: heat maps, .npy [levels, H, W, H, W], or those of the Gaussian denoiser.",
    ),
    _denoiser(
        "--thresholds",
        metavar="LIST|NAME|FILE",
        callback=read_shares,
        help="pspc_flex: one threshold, a comma list with one per noise level, a published schedule or the JSON file "
        "of one. [default: cifar10, for 32 x 32 images]",
    ),
    _denoiser(
        "--mask-sizes",
        type=click.Choice(get_args(MaskSizes)),
        help="pspc_flex: what numbers in --thresholds are shares of: mass, of each heat map; equal, of the pixels, the "
        "same number in every mask.  [default: mass, or what the schedule's file says]",
    ),
    *_GAUSSIAN,
)

_FILTERED = (
    _denoiser("--width", type=click.FloatRange(min=0, min_open=True), help="soft: width of the windows, in pixels."),
    _denoiser(
        "--pca-threshold",
        type=click.FloatRange(min=0, max=1, min_open=True),
        default=0.05,
        show_default=True,
        help="pca: values count from this share of the largest coupling on.",
    ),
)

TEMPERATURE = _denoiser(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    help="All but gaussian, cfdm, snis and networks: above 1, the posteriors over images are flatter.",
)

CLASS = _denoiser(
    "--class",
    "class_label",
    type=int,
    metavar="LABEL",
    help="Only training images of this label count; for a network, the class of the images.  [default: all]",
)

_BASELINES = (
    _denoiser("--smoothing", type=click.FloatRange(min=0), default=0.7, help="cfdm: strength of the perturbations."),
    _denoiser("--num-noises", type=_COUNT, default=8, help="cfdm: number of perturbations."),
    _denoiser("--num-neighbors", type=_COUNT, default=2048, help="snis: images with their exact weight."),
    _denoiser("--num-draws", type=_COUNT, default=256, help="snis: images drawn per query."),
)

_PARTS = _denoiser(
    "--parts",
    metavar="LIST",
    callback=read_parts,
    help="piecewise: comma list of WHAT=LOW:HIGH, a denoiser or network for every range of noise levels, such as "
    "net.json=:0.5,pspc_sq=0.5:5,gaussian=5:80; an end left out is that of the denoiser.",
)

TRUST = _network_option(
    "--trust",
    is_flag=True,
    help="network: run the program that a TorchScript file holds, or that a .json file names as an import path.",
)

_NETWORK = (
    _network_option(
        "--network",
        metavar="FILE|FOLDER|MODULE:CALLABLE|NAME",
        help="network: a network file (safetensors, TorchScript, EDM pickle, or .json that describes one), a folder of "
        "diffusers, the import path of a function D(z, sigma) or torch module, or cifar10-small, which lies in the "
        "repository.",
    ),
    _network_option("--network-pkl", type=input_file(), help="network: a pickle of EDM, of which nothing is executed."),
    _network_option(
        "--network-dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        help="network: precision in which it computes.",
    ),
    TRUST,
)


def check_options(options: Options) -> None:
    """Checks everything that can be checked before data are read.

    Raises:
        click.UsageError: a network or heat maps that are missing.
        InvalidValueError: the noise grid is not one.
    """
    options.sigmas()
    if options.denoiser == "piecewise":
        _check_parts(options)
    elif options.temperature != 1 and options.denoiser not in POSTERIOR_DENOISERS:
        raise click.UsageError(
            f"--temperature is for --denoiser {', '.join(POSTERIOR_DENOISERS)}, not for {options.denoiser}"
        )
    if options.class_label is not None and options.denoiser == "gaussian":
        raise click.UsageError("--class is not for --denoiser gaussian, whose mean and covariance are of all images")
    if options.denoiser == "soft" and options.width is None:
        raise click.UsageError("--denoiser soft needs --width, that of its windows in pixels")
    if options.network is not None and options.network_pkl is not None:
        raise click.UsageError("--network and --network-pkl name a network each; give one of them")
    if options.denoiser == "network" and options.network is None and options.network_pkl is None:
        raise click.UsageError("--denoiser network needs --network, a file, a folder or module:callable")
    if options.denoiser == "pspc_flex" and options.heatmaps is None:
        raise click.UsageError(
            "--denoiser pspc_flex needs --heatmaps FILE, a .npy file [levels, H, W, H, W], or --heatmaps gaussian"
        )


def _check_parts(options: Options) -> None:
    """Checks the parts of the piecewise denoiser as denoisers of their own."""
    if not options.parts:
        raise click.UsageError("--denoiser piecewise needs --parts, such as pspc_sq=:2,gaussian=2:80")
    if options.class_label is not None:
        raise click.UsageError("--class is not for --denoiser piecewise, whose parts name classes in different ways")
    for what, _, _ in options.parts:
        own = options_of(what, options)
        if own.denoiser == "piecewise":
            raise click.UsageError("--parts holds piecewise; allowed are other denoisers and networks")
        check_options(own)


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
        own = options_of(what, options)
        check_options(own)
        name = given if equals else own.denoiser if own.network is None else _short_name(what)
        if not name or name in named:
            raise click.UsageError(f"{spec}: the name {name!r} is empty or taken; write NAME={what} with another one")
        named[name] = own
    return named


def options_of(what: str, options: Options) -> Options:
    """The options of one denoiser or network.

    Args:
        what: one of `DENOISERS`, or a network.
        options: all others.

    Raises:
        click.UsageError: it is neither.
    """
    denoiser = what.replace("-", "_").lower()
    if denoiser in DENOISERS and denoiser != "network":
        return replace(options, denoiser=denoiser)
    if what not in SHIPPED and (":" not in what or Path(what).drive) and not Path(what).exists():
        known = ", ".join(one for one in DENOISERS if one != "network")
        looks_like_path = Path(what).suffix or Path(what).name != what
        problem = f"there is no file or folder {what}" if looks_like_path else f"{what!r} is not a denoiser"
        raise click.UsageError(
            f"{problem}; allowed are {known}, and networks: files, folders, module:callable, {', '.join(SHIPPED)}"
        )
    return replace(options, denoiser="network", network=what)


def _short_name(network: str) -> str:
    path = Path(network)
    # On Windows the colon may be that of a drive.
    return network.rpartition(":")[2] if ":" in network and not path.drive else path.stem
