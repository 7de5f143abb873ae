"""`pspc-rs explain`: a page that shows what denoised images are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.commands import Command, is_given, option_group
from pspc_rs.cli.front import interruptible_bar
from pspc_rs.cli.inputs import image_options, read_noisy, shown_images
from pspc_rs.cli.models import build_model, checksums, class_labels, load_data, schedule_of
from pspc_rs.cli.options import (
    Options,
    check_options,
    n_option,
    posterior_options,
)
from pspc_rs.cli.values import comma_list, input_file, read_pixel
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments import explaining
from pspc_rs.experiments.explain_page import STEM, save_explanations
from pspc_rs.experiments.explained import Explained, Subject, training_name
from pspc_rs.experiments.nearest import NearestImages, nearest_images
from pspc_rs.experiments.noisy_sets import DETERMINISTIC_SAMPLERS, drawn_indices
from pspc_rs.experiments.pages import import_templates
from pspc_rs.outputs import open_array, output_lock
from pspc_rs.progress import Progress, describe
from pspc_rs.provenance import Clock
from pspc_rs.samplers import initial_noise, noise_source

_DEFAULT_N = 4
_DEFAULT_SIGMAS = "0.3,1,3,10"

_images, _shown = option_group("Images"), option_group("Explanation")
_trajectory = option_group("Trajectories")


def _level(text: str) -> float:
    sigma = float(text)
    if not 0 < sigma < math.inf:
        raise ValueError(text)
    return sigma


def _pixels(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]] | None:
    return [read_pixel(value) for value in values] or None


@dataclass(frozen=True)
class _Source:
    """The images that the options ask for.

    Attributes:
        z: noisy images, one array [N, C, H, W] per noise level.
        subjects: what they are.
        exclude: the training images that are left out, one per image.
        nearest: the training images nearest to the clean images.
    """

    z: Sequence[NDArray[Any]]
    subjects: Sequence[Subject]
    exclude: NDArray[np.int64] | None = None
    nearest: NearestImages | None = None


@click.command(cls=Command)
@n_option("How many images.", default=_DEFAULT_N)
@image_options
@_images(
    "--indices",
    callback=comma_list(int, "indices of images, such as 0,17"),
    metavar="LIST",
    help="Which of the images.  [default: drawn from --data, or the first of --images]",
)
@_images("--leave-one-out", is_flag=True, help="Denoise noisy images of --data as if the image behind were not there.")
@_images(
    "--z",
    type=input_file(),
    help="Noisy images, .npy [N, C, H, W], or [levels, N, C, H, W] with an entry for each of --sigmas.",
)
@_images("--trajectory", is_flag=True, help="Explain sampling runs of the denoiser, from noise to samples.")
@_trajectory("--sampler", type=click.Choice(DETERMINISTIC_SAMPLERS), default="heun", help="Solver of the ODE.")
@_trajectory(
    "--z-init",
    type=input_file(),
    help="Initial states, .npy [N, C, H, W], scaled by t_max, or as --protocol has it.  [default: drawn]",
)
@_shown(
    "--sigmas",
    default=_DEFAULT_SIGMAS,
    callback=comma_list(_level, "positive numbers, such as 0.3,1"),
    metavar="LIST",
    help="Noise levels; of trajectories, the steps nearest to them are shown in full.",
)
@_shown(
    "--at", multiple=True, metavar="Y,X", callback=_pixels, help="Pixel whose patches are shown; repeat.  [default: 9]"
)
@_shown("--top", type=click.IntRange(1, explaining.MOST_SHOWN), default=5, help="How many training patches at each.")
@posterior_options
@click.pass_context
def explain(context: click.Context, /, **given: Any) -> None:
    """Show what denoised images are made of: maps, training patches, copies.

    Writes explain.html, a page to look at that needs no network; explain.npz, the numbers on it; and explain.json. For
    each image and noise level: maps of effective images and of variance, the nearest training images (d1/d2 below 1/3:
    a copy), the training images with the largest shares, and the heaviest training patches at some pixels.
    """
    own = {name: given.pop(name) for name in ("images", "images_split", "indices", "leave_one_out", "z")}
    own |= {name: given.pop(name) for name in ("trajectory", "sampler", "z_init", "sigmas", "at", "top")}
    clock, options = Clock(), Options(**given)
    check_options(options)
    own["n_given"] = is_given(context, "n_samples")
    _check_images(context, own)
    import_templates()  # before the work
    page = options.outdir / f"{STEM}.html"
    with output_lock(page):
        data = load_data(options.data, xflip=options.xflip)
        # --denoiser offers no other.
        model = cast(PosteriorComposite, build_model(options, data))
        shown = {"at": own["at"], "top": own["top"]}
        with interruptible_bar("step", "explaining", "nothing is kept") as progress:
            if own["trajectory"]:
                written = _of_trajectories(model, options, own, shown, progress)
            else:
                written = _of_images(model, options, own, shown, progress)
        facts: dict[str, Any] = {
            "denoiser": model.settings,
            "schedule": schedule_of(model),
            "noise": f"{noise_source()} generator",
            "inputs_sha256": checksums(z=own["z"], z_init=own["z_init"], heatmaps=options.heatmaps),
        }
        used = {**options.as_dict(), **{name: value for name, value in own.items() if name != "n_given"}}
        paths = save_explanations(options.outdir, data, options=used, clock=clock, **written, **facts)
    for line in [*Explained(**written).lines(), *paths]:
        click.echo(line)


def _check_images(context: click.Context, own: dict[str, Any]) -> None:
    """Refuses options that say different things about the images."""
    for first, others in {
        "trajectory": ("images", "indices", "leave_one_out", "z"),
        "z": ("images", "indices", "leave_one_out"),
        "images": ("leave_one_out",),
    }.items():
        for second in others:
            if own[first] and own[second]:
                options = " and ".join(f"--{name.replace('_', '-')}" for name in (first, second))
                raise click.UsageError(f"{options} name different images; give one of them")
    if own["indices"] and own["n_given"]:
        raise click.UsageError("--indices and --n-samples both say how many images; give one of them")
    for needed, name in (("trajectory", "sampler"), ("trajectory", "z_init"), ("images", "images_split")):
        if not own[needed] and is_given(context, name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for --{needed}")


def _number(options: Options, own: dict[str, Any], what: object, available: int) -> int:
    """How many of the images there are to take: as many as asked for, or a few."""
    if own["n_given"] and options.n_samples > available:
        raise InvalidValueError(f"--n-samples is {options.n_samples}, but {what} holds {available} images")
    return min(options.n_samples, available)


def _stored(path: Path) -> int:
    """How many images a file of [N, C, H, W] or [levels, N, C, H, W] holds; its shape is checked elsewhere."""
    shape = open_array(path).shape
    return shape[-4] if len(shape) >= 4 else 1


def _of_trajectories(
    model: PosteriorComposite, options: Options, own: dict[str, Any], shown: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    number, data = options.n_samples, model.data
    if own["z_init"] is None:
        start = initial_noise(number, data.shape, options.start_scale, options.seed)
        name = f"sample from the noise of seed {options.seed}"
    else:
        number = _number(options, own, own["z_init"], _stored(own["z_init"]))
        start, name = read_noisy(own["z_init"], number, data), f"sample from {own['z_init'].name}"
    grid = options.sigmas()
    steps = sorted({int(np.abs(np.log(grid) - math.log(sigma)).argmin()) for sigma in own["sigmas"]})
    way = explaining.explain_trajectory(
        model,
        start,
        options.sigmas(include_zero=True),
        sampler=own["sampler"],
        shown=steps,
        class_labels=class_labels(options, model, data, number),
        progress=progress,
        **shown,
    )
    subjects = [Subject(f"{name}, number {one}") for one in range(number)]
    return {"levels": way.levels, "way": way, "subjects": subjects}


def _of_images(
    model: PosteriorComposite, options: Options, own: dict[str, Any], shown: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    source = _source(model.data, options, own)
    sigmas, labels = own["sigmas"], class_labels(options, model, model.data, len(source.subjects))
    levels = [
        explaining.explain(
            model,
            z,
            sigma,
            class_labels=labels,
            exclude=source.exclude,
            progress=_Part(progress, index, len(sigmas)),
            **shown,
        )
        for index, (z, sigma) in enumerate(zip(source.z, sigmas, strict=True))
    ]
    return {"levels": levels, "subjects": source.subjects, "nearest": source.nearest}


class _Part:
    """The progress of one of some explanations as that of all."""

    def __init__(self, progress: Progress, index: int, num: int) -> None:
        self._progress, self._index, self._num = progress, index, num

    def __call__(self, done: int, total: int) -> None:
        self._progress(self._index * total + done, self._num * total)

    def describe(self, what: str) -> None:
        describe(self._progress, what)


def _source(data: ImageSet, options: Options, own: dict[str, Any]) -> _Source:
    """The noisy images of every level."""
    sigmas = own["sigmas"]
    if own["z"] is not None:
        return _from_file(data, own["z"], _number(options, own, own["z"], _stored(own["z"])), len(sigmas))
    exclude, nearest = None, None
    if own["images"] is None:
        indices = own["indices"] or drawn_indices(data, options.n_samples, options.seed).tolist()
        clean = data.batch(indices)
        indices = [index % len(data) for index in indices]  # -1 would leave none out
        names = [training_name(data, index) for index in indices]
        if own["leave_one_out"]:
            exclude = np.array(indices)
            names = [f"{name}, left out" for name in names]
            nearest = nearest_images(data, clean, exclude=exclude)
    else:
        images = shown_images(own["images"], own["images_split"], data)
        indices = own["indices"] or list(range(_number(options, own, "--images", len(images))))
        clean = images.batch(indices)
        names = [f"image {index} of {images.name}" for index in indices]
        nearest = nearest_images(data, clean)
    subjects = [Subject(name, image) for name, image in zip(names, clean, strict=True)]
    z = [clean + initial_noise(len(clean), data.shape, sigma, options.seed) for sigma in sigmas]
    return _Source(z, subjects, exclude, nearest)


def _from_file(data: ImageSet, path: Path, num: int, num_levels: int) -> _Source:
    rows = [None] if num_levels == 1 else list(range(num_levels))
    z = [read_noisy(path, num, data, row=row, rows=num_levels) for row in rows]
    return _Source(z, [Subject(f"noisy image {one} of {path.name}") for one in range(num)])
