"""Metrics of samples that started from the same noise: against those of a reference, and against training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import flag, one_of
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.display import colours_of, display_name
from pspc_rs.experiments.figures import new_figure
from pspc_rs.experiments.image_grids import check_alike
from pspc_rs.experiments.metrics import METRICS, MeanError, copy_ratio, copy_share, flow_distance
from pspc_rs.experiments.nearest import nearest_images
from pspc_rs.progress import Progress, describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 2.6

_OF_SAMPLES = {
    "flow_distance": "probability flow distance, mean over noise",
    "copy_ratio": "d1 / d2 to the training images, mean",
    "copy_share": "share of copies, d1 / d2 < 1/3",
}


@dataclass(frozen=True)
class SampleMetrics:
    """Metrics of several sets of samples.

    Attributes:
        reference: the set that the others are compared with.
        n: samples of each set.
        values: every metric of every set, by name of the metric and of the set. Those against the training images are
            there for the reference, too.

    Example:
        >>> found = SampleMetrics("net", 5, {"r2": {"half": MeanError(0.5, 0.1)}})
        >>> found, found.table()["value"]
        (SampleMetrics(r2 of half; 5 samples), [0.5])
    """

    reference: str
    n: int
    values: Mapping[str, Mapping[str, MeanError]]

    def __repr__(self) -> str:
        names = dict.fromkeys(name for by_set in self.values.values() for name in by_set)
        return f"SampleMetrics({', '.join(self.values)} of {', '.join(names)}; {self.n} samples)"

    def table(self) -> dict[str, list[Any]]:
        """One row per set and metric."""
        rows = [(name, metric, found) for metric, by_set in self.values.items() for name, found in by_set.items()]
        return {
            "samples": [name for name, _, _ in rows],
            "reference": [self.reference] * len(rows),
            "metric": [metric for _, metric, _ in rows],
            "title": [_title(metric) for _, metric, _ in rows],
            "n": [self.n] * len(rows),
            "value": [found.mean for _, _, found in rows],
            "standard_error": [found.standard_error for _, _, found in rows],
        }


def sample_metrics(
    samples: Mapping[str, NDArray[Any]],
    reference: str,
    data: ImageSet | None = None,
    *,
    clip: bool = False,
    progress: Progress | None = None,
) -> SampleMetrics:
    """The metrics of `METRICS` and the probability flow distance of samples to those of a reference, image by image.

    With the training images also the mean of d1 / d2 and the share of copies; see `copy_ratio`.

    Args:
        samples: [N, C, H, W] in [-1, 1] units by name, at least two; image i of every set from the same noise.
        reference: the set that the others are compared with, a network's say.
        data: the training images; None to leave out what needs them.
        clip: clip the samples to [-1, 1] before, as CondDiffNonlinearTheory does.
        progress: called as ``progress(training images done, training images)`` for every set; its `describe` gets
            which one.

    Raises:
        InvalidValueError: no samples, fewer than two of each, nothing to compare the reference with, an unknown
            reference, or one of its images is flat.
        ShapeError: the sets differ in shape, or from the data.
        DTypeError: a set is not an array of floats.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(5, 1, 4, 4))
        >>> found = sample_metrics({"net": a, "half": a / 2}, "net")
        >>> round(found.values["pearson_r"]["half"].mean, 6)
        1.0
    """
    check_alike(samples)
    one_of("reference", reference, samples)
    clipped = flag("clip", clip)
    shown = {name: np.clip(images, -1, 1) if clipped else images for name, images in samples.items()}
    others = [name for name in samples if name != reference]
    if not others and data is None:
        raise InvalidValueError(f"{reference} are the only samples; give others, or the training images as data")
    target = shown[reference]
    values = {metric: {name: one.compute(shown[name], target) for name in others} for metric, one in METRICS.items()}
    values["flow_distance"] = {name: flow_distance(shown[name], target) for name in others}
    if data is not None:
        near = {}
        for name, images in shown.items():
            describe(progress, f"nearest images of {name}")
            near[name] = nearest_images(data, images, progress=progress)
        values["copy_ratio"] = {name: copy_ratio(one) for name, one in near.items()}
        values["copy_share"] = {name: copy_share(one) for name, one in near.items()}
    return SampleMetrics(reference, len(target), values)


def sample_metrics_figure(found: SampleMetrics) -> "Figure":
    """One panel per metric, one point per set with one standard error to each side.

    Args:
        found: as `sample_metrics` returns it.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> found = SampleMetrics("net", 5, {"r2": {"half": MeanError(0.5, 0.1)}})
        >>> sample_metrics_figure(found).axes[0].get_xticklabels()[0].get_text()
        'half'
    """
    shown = {metric: by_set for metric, by_set in found.values.items() if by_set}
    colours = colours_of(name for by_set in shown.values() for name in by_set)
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    figure = new_figure(_PANEL * columns + 0.8, _PANEL * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (metric, by_set) in zip(axes, shown.items(), strict=False):
        for place, (name, (mean, error)) in enumerate(by_set.items()):
            axis.errorbar(place, mean, yerr=error, fmt="o", capsize=3, color=colours[name])
        axis.set_xticks(
            range(len(by_set)), [display_name(name) for name in by_set], rotation=40, ha="right", fontsize=7
        )
        axis.set_title(_title(metric), fontsize=7)
        axis.margins(x=0.2)
        axis.grid(alpha=0.3)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.suptitle(f"{found.n} samples, against {display_name(found.reference)}", fontsize=8)
    return figure


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else _OF_SAMPLES[metric]
