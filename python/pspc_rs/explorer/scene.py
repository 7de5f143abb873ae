"""The numbers that the explorer shows: noisy and denoised images, posteriors, sampling runs; each computed once."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.denoisers import CFDM, SNIS, Denoiser, Network, Piecewise, PosteriorComposite
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.evaluate import denoise
from pspc_rs.experiments.explaining import Floats, check_explains, component_at, pixel_means
from pspc_rs.experiments.image_grids import Trajectory, trajectories
from pspc_rs.explorer.questions import Question
from pspc_rs.explorer.work import Memory
from pspc_rs.posterior import Posterior
from pspc_rs.progress import Progress
from pspc_rs.samplers import initial_noise

Model: TypeAlias = Denoiser | Network | Piecewise

TOP = 8
"""So many training patches are shown at a pixel."""

_KEPT = 48
_KEPT_RUNS = 8
_LEAVE_OUT = (PosteriorComposite, CFDM, SNIS)


class Scene:
    """Data, denoisers and a grid of noise levels, and what they make of the noisy images that are asked for.

    Noise is that of `initial_noise` with numpy's generator, so that nothing waits for torch to be imported.

    Args:
        data: the training images.
        denoisers: by name, at least one.
        sigmas: the noise levels of sampling runs, descending, without a zero at the end.
        images: the images that noise is added to; the training images if not given.
        start_scale: standard deviation of the noise that runs start from; the first noise level if not given.
        sampler: solver of the runs: "heun", "euler" or "dpmpp_2m".

    Raises:
        InvalidValueError: there are no denoisers.
        ShapeError: the images have another shape than the data.

    Example:
        >>> import pspc_rs as pspc
        >>> from pspc_rs.testing import tiny_images
        >>> data = tiny_images()
        >>> scene = Scene(data, {"empirical": pspc.Empirical(data)}, [4.0, 1.0, 0.2])
        >>> asked = Question("image", image=3, sigma=0.5, step=0, seed=0, leave_out=True, runner="empirical")
        >>> scene.noisy(asked).shape, scene.posterior("empirical", asked)
        ((1, 3, 8, 8), Posterior(1 query, 1 component, top 8 of 20 images))
    """

    def __init__(
        self,
        data: ImageSet,
        denoisers: Mapping[str, Model],
        sigmas: Sequence[float],
        *,
        images: ImageSet | None = None,
        start_scale: float | None = None,
        sampler: str = "heun",
    ) -> None:
        if not denoisers:
            raise InvalidValueError("there are no denoisers to explore; give at least one, by name")
        self.data, self.denoisers = data, dict(denoisers)
        self.images = data if images is None else images
        if self.images.shape != data.shape:
            raise ShapeError(f"the images are of {list(self.images.shape)}, the training images of {list(data.shape)}")
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self._start_scale = self.sigmas[0] if start_scale is None else start_scale
        self._sampler = sampler
        self._kept, self._runs = Memory(_KEPT), Memory(_KEPT_RUNS)

    def __repr__(self) -> str:
        return f"Scene({self.data!r}, {', '.join(self.denoisers)})"

    @property
    def images_are_data(self) -> bool:
        """Whether noise is added to training images, which can then be left out."""
        return self.images is self.data

    def has_posterior(self, name: str) -> bool:
        """Whether a denoiser has posteriors over training images that can be shown."""
        try:
            check_explains(self.denoisers[name])
        except InvalidValueError:
            return False
        return True

    def leaves_out(self, name: str, asked: Question) -> bool:
        """Whether a denoiser leaves out the image that noise was added to."""
        return self._exclude(name, asked) is not None

    def sigma(self, asked: Question) -> float:
        """The noise level of a question."""
        return asked.sigma if asked.start == "image" else self.sigmas[asked.step]

    def clean(self, asked: Question) -> Floats | None:
        """The image before noise, [1, C, H, W]; None on sampling runs."""
        return self.images.batch([asked.image]) if asked.start == "image" else None

    def noisy(self, asked: Question, progress: Progress | None = None) -> Floats:
        """The noisy image of a question, [1, C, H, W]."""
        clean = self.clean(asked)
        if clean is None:
            states: Floats = self.run(asked.runner, asked.seed, progress).states[asked.step]
            return states
        noisy: Floats = clean + initial_noise(1, self.data.shape, asked.sigma, asked.seed, generator="numpy")
        return noisy

    def run(self, name: str, seed: int, progress: Progress | None = None) -> Trajectory:
        """The sampling run of a denoiser from the noise of a seed."""

        def compute() -> Trajectory:
            start = initial_noise(1, self.data.shape, self._start_scale, seed, generator="numpy")
            sampling, grid = {name: self.denoisers[name]}, [*self.sigmas, 0.0]
            return trajectories(sampling, start, grid, sampler=self._sampler, progress=progress)[name]

        return self._runs.get((name, seed), compute)

    def denoised(self, name: str, asked: Question, progress: Progress | None = None) -> Floats:
        """What a denoiser makes of the noisy image, float32 [1, C, H, W]."""
        if self.has_posterior(name):
            found: Floats = self.posterior(name, asked, progress).denoised
            return found

        def compute() -> Floats:
            z, exclude = self.noisy(asked, progress), self._exclude(name, asked)
            return denoise(self.denoisers[name], z, self.sigma(asked), name=name, exclude=exclude, progress=progress)

        return self._kept.get(("denoised", name, asked), compute)

    def posterior(self, name: str, asked: Question, progress: Progress | None = None) -> Posterior:
        """The posteriors of a denoiser that has them, given the noisy image."""

        def compute() -> Posterior:
            z, exclude = self.noisy(asked, progress), self._exclude(name, asked)
            model: Any = self.denoisers[name]
            found: Posterior = model.posterior(z, self.sigma(asked), TOP, exclude=exclude, progress=progress)
            return found

        return self._kept.get(("posterior", name, asked), compute)

    def effective_images(self, name: str, asked: Question, progress: Progress | None = None) -> NDArray[np.float64]:
        """The mean of the effective images over the windows at each pixel, [1, H, W]."""
        found = self.posterior(name, asked, progress)
        return pixel_means(found.effective_images, self.masks(name, asked))

    def masks(self, name: str, asked: Question) -> NDArray[np.bool_]:
        """The windows of a denoiser at the noise level, [windows, H, W]."""
        model: Any = self.denoisers[name]
        masks: NDArray[np.bool_] = model.masks_at(self.sigma(asked))
        return masks

    def component(self, name: str, asked: Question, y: int, x: int) -> int:
        """The window of a denoiser at a pixel: see `explain`."""
        return component_at(self.masks(name, asked), y, x)

    def exclude(self, asked: Question) -> NDArray[np.int64] | None:
        """The training image that does not count, [1]; None for none."""
        if not (asked.leave_out and asked.start == "image" and self.images_are_data):
            return None
        return np.array([asked.image % self.data.num_stored])

    def _exclude(self, name: str, asked: Question) -> NDArray[np.int64] | None:
        return self.exclude(asked) if isinstance(self.denoisers[name], _LEAVE_OUT) else None
