"""Commands under ``torchrun``: the first rank runs the command, and the others compute what it asks its denoisers.

So files are written and read by one process alone, and a command resumes as ever. The first rank tells the others which
data sets it loads, sends them its denoisers and says what it asks these; they do the same with their parts of the
images. Networks and denoisers that are not of the engine are computed by the first rank, but for heat maps: for these
every rank makes the denoiser itself, and takes its part of the noisy images.
"""

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial, reduce
from typing import Any, TypeVar, cast

import click
import numpy as np

from pspc_rs.arrays import import_torch
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.errors import PspcError
from pspc_rs.heatmaps.maps import Moments, Source, map_moments
from pspc_rs.ranks import Ranks

Composite = TypeVar("Composite", bound=PosteriorComposite)
Done = TypeVar("Done")

_CREW = "pspc_rs.crew"
_FOREVER = timedelta(days=30)
"""The others wait while the first rank reads, writes and runs networks."""


class Crew:
    """The ranks of a command.

    Args:
        ranks: all of them.
        load: the data set of a name and options.
        build: the denoiser of options and data, on one rank.
    """

    def __init__(self, ranks: Ranks, load: Callable[..., ImageSet], build: Callable[..., Source]) -> None:
        self.ranks = ranks
        self._load, self._build = load, build
        self._data: list[ImageSet] = []
        self._models: list[PosteriorComposite] = []
        self._source: Source

    def __repr__(self) -> str:
        return f"Crew({self.ranks!r})"

    def load(self, name: str, options: dict[str, Any]) -> ImageSet:
        """On the first rank: the data set of a name, which all ranks load."""
        self._tell("load", name, options)
        self._data.append(self._all(lambda: self._load(name, **options)))
        return self._data[-1]

    def adopt(self, model: Composite) -> Composite:
        """On the first rank: a denoiser across all ranks, to which it is sent without the data sets they have loaded.

        What its announced calls change, they change on every rank.
        """
        self._tell("adopt", _pickled(model, self._data))
        number, together = len(self._models), self._all(lambda: model.across(self.ranks.group))
        together.announce_calls(partial(self._tell, "call", number))
        self._models.append(together)
        return together

    def build(self, options: Any, data: ImageSet) -> Source:
        """On the first rank: a denoiser or network that every rank makes for itself, for `map_moments`."""
        self._tell("build", options, next(i for i, known in enumerate(self._data) if known is data))
        self._source = self._all(lambda: self._build(options, data))
        return self._source

    def map_moments(self, source: Source, z: Any, sigma: float, pixels: Any, batch: int) -> Moments:
        """On the first rank: what `heatmaps.maps.map_moments` computes, each rank for its part of the noisy images."""
        del source  # the one of `build`
        self._tell("map_moments", z, sigma, pixels, batch)
        return self._map_moments(z, sigma, pixels, batch)

    def _map_moments(self, z: Any, sigma: float, pixels: Any, batch: int) -> Moments:
        part = self.ranks.share(len(z))
        own = self._all(lambda: map_moments(self._source, z[part.start : part.stop], sigma, pixels, batch))
        means, squares = (self.ranks.gather(one) for one in own[1:])
        numbers = self.ranks.gather(np.array([own.number], np.float64))[:, 0].astype(int).tolist()
        return reduce(Moments.merged, map(Moments, numbers, means, squares))

    def end(self) -> None:
        """On the first rank: lets the others end."""
        with contextlib.suppress(PspcError):
            self._tell("end")

    def follow(self) -> None:
        """On the other ranks: does what the first one says, until it says that this is all."""
        while True:
            # Sent by the first rank of the same command.
            what, *told = pickle.loads(self.ranks.hear())  # noqa: S301
            if what == "end":
                return
            if what == "load":
                name, options = told
                self._data.append(self._all(partial(self._load, name, **options)))
            elif what == "adopt":
                self._models.append(self._all(partial(self._received, *told)))
            elif what == "build":
                options, number = told
                self._source = self._all(partial(self._build, options, self._data[number]))
            elif what == "map_moments":
                self._help(partial(self._map_moments, *told))
            else:
                number, *call = told
                self._help(partial(self._models[number].repeat_call, *call))

    def _help(self, do: Callable[[], object]) -> None:
        """Does a part of the first rank's work; that one hears of an error, too, and decides what to do."""
        try:
            do()
        except Exception as error:
            # One without a kind says that it is another rank's.
            if type(error) is not PspcError:
                click.echo(f"Rank {self.ranks.number}: {type(error).__name__}: {error}", err=True)

    def _received(self, model: bytes) -> PosteriorComposite:
        return cast(PosteriorComposite, _Unpickler(io.BytesIO(model), self._data).load()).across(self.ranks.group)

    def _tell(self, *message: Any) -> None:
        self.ranks.tell(pickle.dumps(message))

    def _all(self, do: Callable[[], Done]) -> Done:
        """Does something that all ranks do.

        Raises:
            PspcError: another rank failed.
        """
        try:
            done = do()
        except Exception:
            self.ranks.gather(np.ones(1))
            raise
        failed = np.flatnonzero(self.ranks.gather(np.zeros(1))[:, 0])
        if len(failed):
            raise PspcError(f"rank {failed[0]} of {self.ranks.count} failed; it says why itself")
        return done


class _Pickler(pickle.Pickler):
    """Writes numbers in the place of data sets that its reader has."""

    def __init__(self, file: io.BytesIO, known: Sequence[ImageSet]) -> None:
        super().__init__(file)
        self._known = known

    def persistent_id(self, obj: Any) -> int | None:
        return next((number for number, one in enumerate(self._known) if one is obj), None)


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` writes."""

    def __init__(self, file: io.BytesIO, known: Sequence[ImageSet]) -> None:
        super().__init__(file)
        self._known = known

    def persistent_load(self, pid: int) -> ImageSet:
        return self._known[pid]


def _pickled(model: PosteriorComposite, known: Sequence[ImageSet]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, known).dump(model)
    return file.getvalue()


def current_crew() -> Crew | None:
    """The ranks of the command that runs; None where it has only one, or is not the first."""
    context = click.get_current_context(silent=True)
    return None if context is None else cast("Crew | None", context.meta.get(_CREW))


@contextlib.contextmanager
def crew_of_command(load: Callable[..., ImageSet], build: Callable[..., Source]) -> Iterator[bool]:
    """Connects the ranks of a command, of which the first one runs what is in the context; says whether this is it.

    Args:
        load: see `Crew`.
        build: see `Crew`.

    Raises:
        MissingDependencyError: torch is missing.
        PspcError: another rank failed.
    """
    import_torch("several ranks")
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=_FOREVER)
    try:
        crew = Crew(Ranks(), load, build)
        if crew.ranks.number > 0:
            yield False
            crew.follow()
            return
        meta = click.get_current_context().meta
        meta[_CREW] = crew
        try:
            yield True
        except Exception:
            # After Ctrl-C the others may be in the middle of a call; they end with this process.
            crew.end()
            raise
        finally:
            del meta[_CREW]
        crew.end()
    finally:
        dist.destroy_process_group()
