"""The views of the explorer: the numbers of a `Scene` as parts of its page, and as numbers for other programs.

A view takes what its address asks and a progress, and returns a JSON object whose ``html`` the page shows.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from pspc_rs import __version__
from pspc_rs.arrays import MAX_SIGMA, MIN_SIGMA
from pspc_rs.experiments.display import display_name
from pspc_rs.experiments.explain_cells import GRADIENT, Cells, describe_windows
from pspc_rs.experiments.explain_page import ExplainPage
from pspc_rs.experiments.explained import Explained, Subject, training_name
from pspc_rs.experiments.explaining import Floats, explain, shares_of
from pspc_rs.experiments.nearest import nearest_images
from pspc_rs.experiments.pages import render_page
from pspc_rs.explorer.questions import MAX_SEED, Asked, Question
from pspc_rs.explorer.scene import TOP, Scene
from pspc_rs.progress import Progress, describe
from pspc_rs.provenance import describe_data, versions

Answer = dict[str, Any]
View: TypeAlias = Callable[[Asked, Progress], Answer]

THUMBNAILS = 12
"""So many images are offered at once."""

_QUESTION = ["start", "image", "sigma", "step", "seed", "leave_out", "runner"]
_PANEL = [*_QUESTION, "denoiser", "part"]


class Views:
    """The page of the explorer and its parts.

    Args:
        scene: what is shown.

    Attributes:
        views: by the last part of their address; each with the names that it may be asked with.

    Example:
        >>> import pspc_rs as pspc
        >>> from pspc_rs.testing import tiny_images
        >>> data = tiny_images()
        >>> views = Views(Scene(data, {"empirical": pspc.Empirical(data)}, [4.0, 1.0, 0.2]))
        >>> names, patches = views.views["patches"]
        >>> asked = Asked({"image": "3", "sigma": "0.5", "denoiser": "empirical", "y": "2", "x": "2"}, names)
        >>> patches(asked, lambda done, total: None)["patches"][0]
        {'image': 3, 'view': 0, 'weight': 1.0}
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.views: Mapping[str, tuple[list[str], View]] = {
            "images": (["first"], self._images),
            "noisy": ([*_QUESTION, "part"], self._noisy),
            "denoised": (_PANEL, self._denoised),
            "variance": (_PANEL, self._variance),
            "patches": ([*_PANEL, "y", "x"], self._patches),
            "shares": (_PANEL, self._shares),
            "difference": ([*_QUESTION, "denoiser", "other"], self._difference),
            "run": (["runner", "seed"], self._run),
            "explain": ([*_PANEL, "y", "x"], self._explain),
        }

    def __repr__(self) -> str:
        return f"Views({self.scene!r})"

    def page(self) -> str:
        """The page, which asks for its parts.

        Raises:
            MissingDependencyError: jinja2 is not installed.
        """
        scene = self.scene
        _, height, width = scene.data.shape
        return render_page(
            "explore.html",
            title="pspc-rs explorer",
            summary=f"{scene.data!r}. pspc-rs {__version__}.",
            sections=[],
            denoisers=[(name, display_name(name)) for name in scene.denoisers],
            sigmas=scene.sigmas,
            first_level=int(np.abs(np.log(scene.sigmas)).argmin()),
            num_images=len(scene.images),
            images_are_data=scene.images_are_data,
            images_name=scene.images.name,
            most_seed=MAX_SEED,
            least_sigma=MIN_SIGMA,
            most_sigma=MAX_SIGMA,
            height=height,
            width=width,
            gradient=GRADIENT,
        )

    def _question(self, asked: Asked) -> Question:
        """The noisy image that is asked for; what plays no part for it has one value, so that it is computed once."""
        scene, names = self.scene, list(self.scene.denoisers)
        start = asked.word("start", ["image", "run"], "image")
        values = {
            "image": asked.integer("image", 0, len(scene.images) - 1, 0),
            "sigma": asked.sigma("sigma", 1.0),
            "step": asked.integer("step", 0, len(scene.sigmas) - 1, 0),
            "leave_out": asked.integer("leave_out", 0, 1, 0),
            "runner": asked.word("runner", names, names[0]),
        }
        unused = {"step": 0, "runner": ""} if start == "image" else {"image": 0, "sigma": 0.0, "leave_out": 0}
        return Question(start=start, seed=asked.integer("seed", 0, MAX_SEED, 0), **{**values, **unused})  # type: ignore[arg-type]

    def _denoiser(self, asked: Asked, name: str = "denoiser") -> str:
        return asked.word(name, list(self.scene.denoisers))

    def _cells(self, asked: Asked, view: str) -> Cells:
        """Cells whose names are those of one place on the page."""
        return Cells(self.scene.data, f"{view}-{asked.word('part', ['a', 'b'], 'a')}-")

    def _pixel(self, asked: Asked) -> tuple[int, int]:
        _, height, width = self.scene.data.shape
        return asked.integer("y", 0, height - 1), asked.integer("x", 0, width - 1)

    def _images(self, asked: Asked, progress: Progress) -> Answer:
        """Images to choose from."""
        del progress
        images, cells = self.scene.images, Cells(self.scene.data, "images-")
        first = asked.integer("first", 0, len(images) - 1, 0)
        shown = range(first, min(first + THUMBNAILS, len(images)))
        offered = [
            cells.cell(cells.picture(str(index), images.batch([index])[0]), self._name(index)) for index in shown
        ]
        html = render_page("explore_images.html", offered=list(zip(shown, offered, strict=True)), **cells.context)
        return {"html": html, "first": first, "step": THUMBNAILS, "num": len(images)}

    def _noisy(self, asked: Asked, progress: Progress) -> Answer:
        """The image before noise, and the noisy one."""
        question, cells, scene = self._question(asked), self._cells(asked, "noisy"), self.scene
        z, clean, sigma = scene.noisy(question, progress), scene.clean(question), scene.sigma(question)
        shown = [cells.cell(cells.state("z", z[0], sigma), "noisy image", f"\N{GREEK SMALL LETTER SIGMA} {sigma:.4g}")]
        if clean is not None:
            name = self._name(question.image)
            shown.insert(0, cells.cell(cells.picture("clean", clean[0]), "before noise", name))
        return {
            "html": render_page("explore_cells.html", shown=shown, maps=[], note="", **cells.context),
            "sigma": sigma,
        }

    def _denoised(self, asked: Asked, progress: Progress) -> Answer:
        """The denoised image, and the map of effective images where there are posteriors."""
        question, name, cells, scene = self._question(asked), self._denoiser(asked), self._cells(asked, "d"), self.scene
        denoised, clean = scene.denoised(name, question, progress), scene.clean(question)
        answer: Answer = {"has_posterior": scene.has_posterior(name)}
        further = []
        if clean is not None:
            answer["error"] = _mean_square(denoised, clean)
            further.append(f"MSE {answer['error']:.3g}")
        shown = [cells.cell(cells.picture("D", denoised[0]), "denoised image", *further)]
        maps = []
        if answer["has_posterior"]:
            effective, masks = scene.effective_images(name, question, progress), scene.masks(name, question)
            maps.append(cells.effective_map("e", effective, 0))
            answer |= {"windows": describe_windows(masks, len(masks)), "effective_images": effective[0].tolist()}
        note = self._note(name, question, answer)
        return {"html": render_page("explore_cells.html", shown=shown, maps=maps, note=note, **cells.context), **answer}

    def _note(self, name: str, question: Question, answer: Answer) -> str:
        """What is to be known of a denoised image, in a line."""
        parts = [answer["windows"]] if "windows" in answer else ["no posteriors to show"]
        if self.scene.exclude(question) is not None and not self.scene.leaves_out(name, question):
            parts.append("cannot leave the image out")
        return "; ".join(parts)

    def _variance(self, asked: Asked, progress: Progress) -> Answer:
        """The map of variance."""
        question, name, cells = self._question(asked), self._denoiser(asked), self._cells(asked, "v")
        if not self.scene.has_posterior(name):
            return {"html": ""}
        posterior = self.scene.posterior(name, question, progress)
        describe(progress, "variance")
        variance = np.asarray(posterior.find_variance(progress), np.float64)
        maps = [cells.variance_map("v", variance, 0)]
        html = render_page("explore_cells.html", shown=[], maps=maps, note="", **cells.context)
        return {"html": html, "variance": variance[0].tolist()}

    def _patches(self, asked: Asked, progress: Progress) -> Answer:
        """The training patches behind a pixel, and their weights."""
        question, name, cells, scene = self._question(asked), self._denoiser(asked), self._cells(asked, "p"), self.scene
        y, x = self._pixel(asked)
        if not scene.has_posterior(name):
            return {"html": "", "patches": []}
        posterior = scene.posterior(name, question, progress)
        component, masks = scene.component(name, question, y, x), scene.masks(name, question)
        tops = (posterior.top_index, posterior.top_view, posterior.top_weight)
        atoms = [atom for atom in zip(*(top[0, component].tolist() for top in tops), strict=True) if atom[0] >= 0]
        effective = float(posterior.effective_images[0, component])
        position = cells.patches(
            "The whole image" if len(masks) == 1 else f"y {y}, x {x}",
            effective,
            atoms,
            mask=cells.mask("m", masks[component]),
            z=cells.state("z", scene.noisy(question)[0], scene.sigma(question)),
            denoised=cells.picture("D", posterior.denoised[0]),
        )
        return {
            "html": render_page("explore_patches.html", shown=position, **cells.context),
            "component": component,
            "effective_images": effective,
            "patches": [{"image": image, "view": view, "weight": weight} for image, view, weight in atoms],
        }

    def _shares(self, asked: Asked, progress: Progress) -> Answer:
        """The training images with the largest shares, and those nearest to the denoised image."""
        question, name, cells, scene = self._question(asked), self._denoiser(asked), self._cells(asked, "s"), self.scene
        denoised = scene.denoised(name, question, progress)
        shares, answer = [], Answer()
        if scene.has_posterior(name):
            describe(progress, "shares")
            posterior = scene.posterior(name, question, progress)
            posterior.attribution(progress)
            found = shares_of(posterior)[0]
            shares = cells.shares(found)
            answer["largest"] = [{"image": int(one), "share": float(found[one])} for one in np.argsort(-found)[:TOP]]
        describe(progress, "nearest images")
        near = nearest_images(scene.data, denoised, exclude=scene.exclude(question), progress=progress)
        answer["nearest"] = {"images": near.index[0].tolist(), "is_copy": bool(near.is_copy[0])}
        html = render_page("explore_shares.html", near=cells.nearest(near, 0), shares=shares, **cells.context)
        return {"html": html, **answer}

    def _difference(self, asked: Asked, progress: Progress) -> Answer:
        """How far what two denoisers make of the same noisy image is apart."""
        question, names, cells = self._question(asked), ("denoiser", "other"), Cells(self.scene.data, "difference-")
        first, second = (self.scene.denoised(self._denoiser(asked, name), question, progress) for name in names)
        apart = np.abs(first.astype(np.float64) - second).mean(axis=1)
        error = _mean_square(first, second)
        maps = [cells.map("map", "difference", apart, 0, "{:.2g}".format)] if error else []
        note = f"mean squared difference {error:.3g}" if error else "the two are the same"
        html = render_page("explore_cells.html", shown=[], maps=maps, note=note, **cells.context)
        return {"html": html, "mean_squared": error}

    def _run(self, asked: Asked, progress: Progress) -> Answer:
        """The steps of a sampling run."""
        name, seed = self._denoiser(asked, "runner"), asked.integer("seed", 0, MAX_SEED, 0)
        way, cells = self.scene.run(name, seed, progress), Cells(self.scene.data, "run-")
        steps = [
            cells.cell(cells.picture(str(step), way.denoised[step, 0]), f"\N{GREEK SMALL LETTER SIGMA} {sigma:.3g}")
            for step, sigma in enumerate(self.scene.sigmas)
        ]
        sample = cells.cell(cells.picture("sample", way.states[-1, 0]), "the sample")
        return {"html": render_page("explore_run.html", steps=steps, sample=sample, **cells.context)}

    def _explain(self, asked: Asked, progress: Progress) -> Answer:
        """The page of `pspc-rs explain` for the noisy image, with the pixel."""
        question, name, scene = self._question(asked), self._denoiser(asked), self.scene
        y, x = self._pixel(asked)
        model: Any = scene.denoisers[name]
        z, clean, exclude = scene.noisy(question, progress), scene.clean(question), scene.exclude(question)
        level = explain(model, z, scene.sigma(question), at=[(y, x)], top=TOP, exclude=exclude, progress=progress)
        what = f"step {question.step} of the sampling run of seed {question.seed}"
        if clean is not None:
            what = f"{self._name(question.image)}{', left out' if exclude is not None else ''}"
        found = Explained([level], None, [Subject(what, None if clean is None else clean[0])])
        used = {"noise": "numpy generator", "seed": question.seed, "denoiser": model.settings}
        record = {"command": "explore", **used, "data": describe_data(scene.data), "versions": versions()}
        return {"html": ExplainPage(scene.data, found, f"{what}: {display_name(name)}", record).render()}

    def _name(self, index: int) -> str:
        images = self.scene.images
        return training_name(images, index) if self.scene.images_are_data else f"image {index} of {images.name}"


def _mean_square(first: Floats, second: Floats) -> float:
    return float(np.square(first.astype(np.float64) - second).mean())
