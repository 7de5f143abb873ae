"""Paired differences: denoisers of the same noisy images are told apart by their errors image by image."""

from collections.abc import Mapping, Sequence

from pspc_rs.experiments.image_errors import Errors
from pspc_rs.experiments.metrics import mean_over_images
from pspc_rs.experiments.results import Row


def best_of(means: Mapping[str, float], candidates: Sequence[str]) -> str | None:
    """The candidate of least mean; the first of equal ones, None if there is none.

    Example:
        >>> best_of({"a": 2.0, "b": 1.0, "net": 0.0}, ["a", "b"])
        'b'
    """
    return min((name for name in candidates if name in means), key=lambda name: means[name], default=None)


def paired_rows(
    row: Row, settings: Mapping[str, str], errors: Mapping[str, Errors], candidates: Sequence[str]
) -> list[Row]:
    """The differences of every denoiser to the best one at a level, with their standard errors over images.

    Args:
        row: process, target, level, sigma and n, which all rows have.
        settings: the key of the settings of every denoiser.
        errors: of every denoiser, of the same noisy images, at least two.
        candidates: the denoisers that may be the best one, such as all but the target itself.

    Example:
        >>> import numpy as np
        >>> where = {"process": "forward", "target": "net", "level": 0, "sigma": 1.0, "n": 2}
        >>> errors = {"a": np.array([1.0, 2.0]), "b": np.array([1.5, 2.5])}
        >>> rows = paired_rows(where, {"a": "0f", "b": "1e"}, errors, ["a", "b"])
        >>> [(one["denoiser"], one["reference"], one["difference"], one["standard_error"]) for one in rows]
        [('a', 'a', 0.0, 0.0), ('b', 'a', 0.5, 0.0)]
    """
    best = best_of({name: float(own.mean()) for name, own in errors.items()}, candidates)
    if best is None:
        return []
    rows: list[Row] = []
    for name, own in errors.items():
        difference = mean_over_images(own - errors[best])
        rows.append(
            {
                **row,
                "denoiser": name,
                "settings": settings[name],
                "reference": best,
                "reference_settings": settings[best],
                "difference": difference.mean,
                "standard_error": difference.standard_error,
            }
        )
    return rows
