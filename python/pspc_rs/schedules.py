"""Schedules of window sides and of heat-map thresholds: how much of an image a PSPC denoiser sees at each sigma."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import is_torch
from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.errors import DTypeError, InvalidValueError, MissingFileError, PspcError, ScheduleError, ShapeError
from pspc_rs.files import replacing
from pspc_rs.published import SIDES, THRESHOLDS, Published
from pspc_rs.reprs import build_repr
from pspc_rs.sigmas import Nearest, check_grid, check_nearest, edm_sigmas, nearest_index, nearest_level

FULL: Literal["full"] = "full"
"""The window that is the whole image, in schedules of window sides."""

Side: TypeAlias = int | Literal["full"]
"""Side of a square window in pixels, or "full" for the whole image."""

MaskSizes: TypeAlias = Literal["mass", "equal"]
"""What a threshold is a share of: of a heat map's mass, or of the image's pixels, the same number in every mask."""

Value = TypeVar("Value")
SomeSchedule = TypeVar("SomeSchedule", bound="Schedule[Any]")

_FITTED = Path(__file__).with_name("fitted")


class Schedule(ABC, Generic[Value]):
    """A value for every noise level: that of the nearest level of a grid.

    Schedules of noise levels over time are `samplers.design_space.NoiseSchedule`.

    Example:
        >>> schedule = PatchSchedule((8, 3), sigmas=(1.0, 0.1), image_size=(8, 8))
        >>> isinstance(schedule, Schedule), schedule.at([0.9, 0.2])
        (True, ['full', 3])
    """

    kind: ClassVar[str]
    published: ClassVar[Mapping[str, Published]]
    _values_field: ClassVar[str]
    # Fields that came later, with the values at which earlier versions can do without them.
    _later: ClassVar[Mapping[str, object]] = MappingProxyType({})

    sigmas: tuple[float, ...]
    image_size: tuple[int, int]
    name: str
    nearest: Nearest
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Checks the fields and converts each to the type it is stored in."""
        check_nearest(self.nearest)
        if not isinstance(self.name, str) or not isinstance(self.provenance, Mapping):
            raise DTypeError(f"name is {self.name!r}, provenance {self.provenance!r}; allowed are a string and a dict")
        object.__setattr__(self, "image_size", _image_size(self.image_size))
        object.__setattr__(self, "sigmas", tuple(level for level in check_grid(self.sigmas).tolist() if level > 0))
        values = tuple(self._checked(value) for value in _listed(self._values_field, self._values))
        object.__setattr__(self, self._values_field, values)
        if len(values) != len(self.sigmas):
            raise ScheduleError(
                f"{self._values_field} has {len(values)} entries for {len(self.sigmas)} noise levels above 0; "
                "the numbers must be equal"
            )

    @classmethod
    def _fields(cls) -> list[str]:
        return [one.name for one in dataclasses.fields(cast(Any, cls))]

    @property
    def _changed(self) -> dict[str, Any]:
        return {name: value for name in self._later if (value := getattr(self, name)) != self._later[name]}

    @property
    def _values(self) -> tuple[Value, ...]:
        return cast(tuple[Value, ...], getattr(self, self._values_field))

    def __repr__(self) -> str:
        height, width = self.image_size
        levels = f"{len(self.sigmas)} level{'s' * (len(self.sigmas) != 1)}"
        span = f"{levels} from sigma {self.sigmas[0]:g} to {self.sigmas[-1]:g}"
        return build_repr(
            self, repr(self.name), span, f"{height} x {width} images", nearest=self.nearest, **self._changed
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """What decides the values, without the name and the provenance.

        Example:
            >>> PatchSchedule((8, 3), sigmas=(1.0, 0.1), image_size=(8, 8)).numbers
            {'patch_sizes': ['full', 3], 'sigmas': [1.0, 0.1], 'nearest': 'linear'}
        """
        return {
            self._values_field: list(self._values),
            "sigmas": list(self.sigmas),
            "nearest": self.nearest,
            **self._changed,
        }

    @abstractmethod
    def _checked(self, value: object) -> Value:
        """One value, checked and converted to the type it is stored in."""

    @overload
    def at(self, sigma: float) -> Value: ...
    @overload
    def at(self, sigma: object) -> Any: ...
    def at(self, sigma: object) -> Any:
        """The value at a noise level, or the list of values at an array or tensor of noise levels.

        Raises:
            InvalidValueError: sigma is not positive and finite.

        Example:
            >>> patch_schedule("cifar10").at(1.0), patch_schedule("cifar10").at([80.0, 0.1])
            (7, ['full', 3])
        """
        index = nearest_level(sigma, self.sigmas, self.nearest)
        return self._values[index] if isinstance(index, int) else [self._values[i] for i in index.ravel()]

    @cached_property
    def _scaled_levels(self) -> NDArray[np.float64]:
        """The noise levels on the scale on which distances are measured."""
        levels = np.array(self.sigmas, np.float64)
        return np.log(levels) if self.nearest == "log" else levels

    def indices(self, sigmas: NDArray[np.float64]) -> list[int]:
        """The index of the level in use at every noise level.

        Args:
            sigmas: positive, finite noise levels, which are not checked again.

        Example:
            >>> patch_schedule("cifar10").indices(np.array([80.0, 0.002]))
            [0, 17]
        """
        values = np.log(sigmas) if self.nearest == "log" else sigmas
        found: list[int] = nearest_index(values, self._scaled_levels).tolist()
        return found

    @abstractmethod
    def scaled(self, image_size: int | tuple[int, int], side: int) -> Self:
        """The schedule for images of another size, of which ``side`` is the side that the scale is taken from."""

    def _resized(self, image_size: int | tuple[int, int], side: int, values: tuple[Value, ...]) -> Self:
        origin = {"scaled_from": {"name": self.name, "image_size": list(self.image_size)}, "scale_to": side}
        changes: dict[str, Any] = {
            self._values_field: values,
            "image_size": image_size,
            "name": f"{self.name}, scaled to {side}",
            "provenance": {**self.provenance, **origin},
        }
        return cast(Self, dataclasses.replace(cast(Any, self), **changes))

    def save(self, path: str | Path) -> None:
        """Writes the schedule as a JSON file, which ``load`` reads back without any loss.

        Raises:
            OutputError: the file cannot be written.
            DTypeError: the provenance holds something that JSON cannot.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     patch_schedule("cifar10").save(f"{folder}/sides.json")
            ...     PatchSchedule.load(f"{folder}/sides.json") == patch_schedule("cifar10")
            True
        """
        record = {name: getattr(self, name) for name in self._fields() if name not in self._later} | self._changed
        record |= {"provenance": dict(self.provenance)}
        try:
            text = json.dumps({"kind": self.kind} | record, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DTypeError(f"the provenance of schedule {self.name!r} cannot be written as JSON: {error}") from error
        with replacing(Path(path)) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The schedule in a JSON file that ``save`` wrote.

        Raises:
            MissingFileError: there is no such file.
            ScheduleError: the file is no schedule, or one of the other kind.
        """
        record = _read_record(Path(path))
        kind = record.pop("kind", None)
        if kind != cls.kind:
            raise ScheduleError(f"{path} holds a schedule of kind {kind!r}; needed is {cls.kind!r}")
        if not {cls._values_field, "sigmas", "image_size"} <= record.keys() <= set(cls._fields()):
            raise ScheduleError(f"{path} has the keys {sorted(record)}; allowed are kind, {', '.join(cls._fields())}")
        try:
            return cls(**record)
        except PspcError as error:
            raise ScheduleError(f"{path} is no valid schedule: {error}") from error


@dataclass(frozen=True, repr=False)
class PatchSchedule(Schedule[Side]):
    """Window sides for PSPC-Square, one per noise level (Niedoba et al. 2025, sec. 5.1).

    Lists and arrays may be given for the tuples, and one side for the image size; they are stored as tuples.

    Args:
        patch_sizes: sides in pixels, 1 up to the shorter side of the image, in the order of ``sigmas``. The string
            "full" is the whole image; a side that equals height and width is stored as "full".
        sigmas: strictly descending noise levels; a final 0 is dropped.
        image_size: (height, width) of the images the schedule is for.
        name: what messages and files call it.
        nearest: "linear" or "log": which level a sigma between two levels belongs to.
        provenance: where the numbers come from, kept in the file.

    Raises:
        InvalidValueError: a side is below 1 or larger than the image, or sigmas do not descend.
        DTypeError: a side is not an integer.
        ScheduleError: there are not as many sides as noise levels.

    Example:
        >>> schedule = PatchSchedule((8, 3), sigmas=(1.0, 0.1), image_size=(8, 8))
        >>> schedule
        PatchSchedule('custom', 2 levels from sigma 1 to 0.1, 8 x 8 images, nearest='linear')
        >>> schedule.patch_sizes
        ('full', 3)
    """

    kind: ClassVar[str] = "patch"
    published: ClassVar[Mapping[str, Published]] = SIDES
    _values_field: ClassVar[str] = "patch_sizes"

    patch_sizes: tuple[Side, ...]
    sigmas: tuple[float, ...]
    image_size: tuple[int, int]
    name: str = "custom"
    nearest: Nearest = "linear"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def _checked(self, value: object) -> Side:
        if isinstance(value, str) and value == FULL:
            return FULL
        side = integer("window side", value)
        height, width = self.image_size
        if side > min(height, width):
            raise InvalidValueError(
                f"window side is {side}, but the images are {height} x {width}; allowed are 1 to "
                f'{min(height, width)} and "full"'
            )
        return FULL if side == height == width else side

    def scaled(self, image_size: int | tuple[int, int], side: int) -> Self:
        """The schedule for images of another size.

        Every window side is multiplied by ``side`` over the shorter side of the old images and rounded to the nearest
        integer, an odd one to the nearest odd number (halves go up), so that centred windows stay centred; it
        becomes at least 1 and at most the shorter side of the new images. "full" stays "full".

        Args:
            image_size: side, or (height, width), of the new images.
            side: which side of the new images sets the scale.

        Example:
            >>> patch_schedule("cifar10").scaled(64, 64).patch_sizes[6:12]
            ('full', 47, 31, 23, 15, 11)
        """
        new, old = integer("side", side), min(self.image_size)
        most = min(_image_size(image_size))

        def scale(value: Side) -> Side:
            if value == FULL:
                return FULL
            nearest = 2 * (value * new // (2 * old)) + 1 if value % 2 else (2 * value * new + old) // (2 * old)
            return min(max(nearest, 1), most)

        return self._resized(image_size, new, tuple(scale(value) for value in self.patch_sizes))


@dataclass(frozen=True, repr=False)
class CentredSchedule(PatchSchedule):
    """Sides of squares around every pixel, one per noise level: odd, 1 to 2 max(H, W) - 1, or "full".

    A square that is cut at the border may be larger than the image, as it holds all of it only from the side
    2 max(H, W) - 1 on. Arguments are those of `PatchSchedule`.

    Raises:
        InvalidValueError: a side is even, below 1 or too large, or sigmas do not descend.
        DTypeError, ScheduleError: see `PatchSchedule`.

    Example:
        >>> CentredSchedule((15, 3), sigmas=(1.0, 0.1), image_size=(8, 8)).patch_sizes
        (15, 3)
    """

    def _checked(self, value: object) -> Side:
        if isinstance(value, str) and value == FULL:
            return FULL
        side, most = integer("window side", value), 2 * max(self.image_size) - 1
        if side % 2 == 0 or side > most:
            height, width = self.image_size
            raise InvalidValueError(
                f"window side is {side}; allowed around the pixels of {height} x {width} images are odd sides from 1 "
                f'to {most} and "full"'
            )
        return side


@dataclass(frozen=True, repr=False)
class ThresholdSchedule(Schedule[float]):
    """Heat-map thresholds for PSPC-Flex, one per noise level (Niedoba et al. 2025, sec. 5.2).

    A threshold is the share of a heat map that a mask must contain, or the share of the image's pixels that it has; 1
    is the whole image. Lists, arrays, and one side for the image size are stored as tuples.

    Args:
        thresholds: numbers above 0 and up to 1, in the order of ``sigmas``.
        sigmas: strictly descending noise levels; a final 0 is dropped.
        image_size: (height, width) of the images the schedule is for.
        name: what messages and files call it.
        nearest: "linear" or "log": which level a sigma between two levels belongs to.
        provenance: where the numbers come from, kept in the file.
        sizes: "mass", shares of heat maps, or "equal", shares of the pixels.

    Raises:
        InvalidValueError: a threshold is out of range, other sizes, or sigmas do not descend.
        DTypeError: a threshold is not a number.
        ScheduleError: there are not as many thresholds as noise levels.

    Example:
        >>> schedule = ThresholdSchedule((1, 0.4), sigmas=(1.0, 0.1), image_size=(8, 8))
        >>> schedule
        ThresholdSchedule('custom', 2 levels from sigma 1 to 0.1, 8 x 8 images, nearest='linear')
        >>> schedule.at(0.2)
        0.4
    """

    kind: ClassVar[str] = "threshold"
    published: ClassVar[Mapping[str, Published]] = THRESHOLDS
    _values_field: ClassVar[str] = "thresholds"
    _later: ClassVar[Mapping[str, object]] = MappingProxyType({"sizes": "mass"})

    thresholds: tuple[float, ...]
    sigmas: tuple[float, ...]
    image_size: tuple[int, int]
    name: str = "custom"
    nearest: Nearest = "linear"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    sizes: MaskSizes = "mass"

    def _checked(self, value: object) -> float:
        one_of("sizes", self.sizes, get_args(MaskSizes))
        return real_number("threshold", value, above=0, most=1)

    def scaled(self, image_size: int | tuple[int, int], side: int) -> Self:
        """The schedule for images of another size: the same thresholds, because they are shares of a heat map."""
        return self._resized(image_size, integer("side", side), self.thresholds)


def patch_schedule(name: str) -> PatchSchedule:
    """A schedule of window sides by name.

    "cifar10" is that of Niedoba et al. 2025 for 32 x 32 images, on the EDM grid of 18 noise levels.

    Those of Kamb and Ganguli (arXiv 2412.20292) are squares around a pixel that make their equivariant score machine
    come nearest to a network, on 19 levels of a cosine schedule from sigma 11.03 to .078: "kamb-cifar10-resnet" (zero
    padding), "kamb-cifar10-resnet-circular", "kamb-cifar10-unet", "kamb-fashion-resnet", "kamb-fashion-unet",
    "kamb-mnist-resnet" and "kamb-mnist-unet". All are for 32 x 32 images, to which they enlarged the latter two sets.
    Their sides are odd and fit the image, so that `LS`, `ELS`, `BBELS` and `PSPCSquare` take them.

    "mnist-bp", "mnist-yz", "cifar10-bfcnn" and "afhq-cats-64-bfcnn" were fitted here to small networks, between sigma
    .05 and 2, or .6 for the last two; their ``provenance`` says how, with the curves.

    Raises:
        ScheduleError: there is no schedule of this name.

    Example:
        >>> patch_schedule("cifar10").patch_sizes[6:10]
        ('full', 23, 15, 11)
        >>> patch_schedule("kamb-cifar10-unet").at([11.03, 1.0, 0.1])
        [25, 7, 3]
    """
    return _published(PatchSchedule, name)


def threshold_schedule(name: str) -> ThresholdSchedule:
    """A published schedule of heat-map thresholds.

    "cifar10" is that of Niedoba et al. 2025 for 32 x 32 images, on the EDM grid of 18 noise levels.

    Raises:
        ScheduleError: there is no schedule of this name.

    Example:
        >>> threshold_schedule("cifar10").at(1.0)
        0.4
    """
    return _published(ThresholdSchedule, name)


def resolve_patch_schedule(
    spec: object,
    image_size: int | tuple[int, int],
    sigmas: object = None,
    scale_to: int | None = None,
    nearest: Nearest | None = None,
) -> PatchSchedule:
    """The schedule of window sides that a user means.

    Args:
        spec: name of a published schedule, path of a JSON file, a PatchSchedule, one side (or "full") for every noise
            level, or a list or array of sides.
        image_size: side, or (height, width), of the images it is to be used with.
        sigmas: noise levels of a list, descending; the EDM grid of that many levels if not given.
        scale_to: a side of the images: allows a schedule made for another image size to be scaled to this one, by the
            rule of ``PatchSchedule.scaled``.
        nearest: "linear" or "log", in place of the schedule's own.

    Raises:
        ScheduleError: the schedule is unknown, for other images, or does not fit its noise levels.
        MissingFileError: the path does not exist.
        InvalidValueError: a side, sigma or scale is out of range.
        DTypeError: spec is none of the above.

    Example:
        >>> resolve_patch_schedule([8, 3], image_size=8).sigmas
        (80.0, 0.002)
    """
    return _resolve(PatchSchedule, spec, image_size, sigmas=sigmas, scale_to=scale_to, nearest=nearest)


def resolve_centred_schedule(
    spec: object,
    image_size: int | tuple[int, int],
    sigmas: object = None,
    scale_to: int | None = None,
    nearest: Nearest | None = None,
) -> CentredSchedule:
    """The schedule of squares around every pixel that a user means.

    Arguments and errors are those of ``resolve_patch_schedule``; sides have to be odd, and may be larger than the
    image.

    Example:
        >>> resolve_centred_schedule("cifar10", image_size=32).patch_sizes[6:9]
        ('full', 23, 15)
    """
    named = isinstance(spec, Path) or (isinstance(spec, str) and spec != FULL)
    if not named and not isinstance(spec, Schedule):
        return _resolve(CentredSchedule, spec, image_size, sigmas=sigmas, scale_to=scale_to, nearest=nearest)
    known = resolve_patch_schedule(spec, image_size, sigmas=sigmas, scale_to=scale_to, nearest=nearest)
    return CentredSchedule(**{name: getattr(known, name) for name in CentredSchedule._fields()})


def resolve_threshold_schedule(
    spec: object,
    image_size: int | tuple[int, int],
    sigmas: object = None,
    scale_to: int | None = None,
    nearest: Nearest | None = None,
    *,
    sizes: MaskSizes | None = None,
) -> ThresholdSchedule:
    """The schedule of heat-map thresholds that a user means.

    Arguments and errors are those of ``resolve_patch_schedule``, with numbers above 0 and up to 1 for sides. ``sizes``
    says what numbers and lists are shares of, "mass" if it is None; a schedule knows that itself, and refuses others.

    Example:
        >>> resolve_threshold_schedule(0.4, image_size=(48, 64)).at(2.0)
        0.4
    """
    found = _resolve(ThresholdSchedule, spec, image_size, sigmas=sigmas, scale_to=scale_to, nearest=nearest)
    if sizes in (None, found.sizes):
        return found
    if isinstance(spec, Schedule | str | Path):
        raise ScheduleError(f"sizes are {sizes!r}; schedule {found.name!r} has thresholds of sizes {found.sizes!r}")
    return dataclasses.replace(found, sizes=sizes)


def _resolve(
    cls: type[SomeSchedule],
    spec: object,
    image_size: int | tuple[int, int],
    *,
    sigmas: object,
    scale_to: int | None,
    nearest: Nearest | None,
) -> SomeSchedule:
    size = _image_size(image_size)
    if isinstance(spec, Schedule | Path) or (isinstance(spec, str) and spec != FULL):
        if sigmas is not None:
            name = getattr(spec, "name", spec)
            raise ScheduleError(f"sigmas are for a list of values; schedule {name!r} has its own")
        schedule = _find(cls, spec)
    else:
        schedule = _custom(cls, spec, size, sigmas)
    schedule = _fit_size(schedule, size, scale_to)
    chosen = schedule.nearest if nearest is None else nearest
    return cast(SomeSchedule, dataclasses.replace(cast(Any, schedule), nearest=chosen))


def _find(cls: type[SomeSchedule], spec: object) -> SomeSchedule:
    if isinstance(spec, Schedule):
        if not isinstance(spec, cls):
            raise ScheduleError(f"schedule {spec.name!r} is of kind {spec.kind!r}; needed is {cls.kind!r}")
        return spec
    name = str(spec)
    if name in _names(cls) or not (name.endswith(".json") or Path(name).exists()):
        return _published(cls, name)
    return cls.load(name)


def _custom(cls: type[SomeSchedule], spec: object, size: tuple[int, int], sigmas: object) -> SomeSchedule:
    """The schedule of a list of values, or of one value for every noise level, for which any grid will do."""
    if isinstance(spec, list | tuple) or np.ndim(cast(Any, spec)) > 0:
        values = _listed(cls._values_field, spec)
        grid = edm_sigmas(len(values), include_zero=False) if sigmas is None else check_grid(sigmas)
        name = "custom"
    else:
        grid = check_grid([1.0] if sigmas is None else sigmas)
        values = [spec] * np.count_nonzero(grid)
        name = f"constant {spec}"
    return cast(SomeSchedule, cast(Any, cls)(values, grid, size, name))


def _fit_size(schedule: SomeSchedule, size: tuple[int, int], scale_to: int | None) -> SomeSchedule:
    height, width = size
    if scale_to is not None and integer("scale_to", scale_to) not in size:
        raise InvalidValueError(f"scale_to is {scale_to}; allowed is a side of the {height} x {width} images")
    if schedule.image_size == size:
        return schedule
    if scale_to is not None:
        return schedule.scaled(size, scale_to)
    old_height, old_width = schedule.image_size
    raise ScheduleError(
        f"schedule {schedule.name!r} is for {old_height} x {old_width} images, but these are {height} x {width}; give "
        f"a list of values for this size, or scale_to={min(size)} to have this one scaled"
    )


def _names(cls: type[Schedule[Any]]) -> list[str]:
    """The schedules known by name: the published ones, and those in the package's folder of fitted ones."""
    return [*cls.published, *sorted(path.stem for path in (_FITTED / cls.kind).glob("*.json"))]


def _published(cls: type[SomeSchedule], name: str) -> SomeSchedule:
    if name not in _names(cls):
        known = ", ".join(repr(one) for one in _names(cls))
        raise ScheduleError(f"there is no {cls.kind} schedule {name!r}; allowed are {known} and paths of JSON files")
    if name not in cls.published:
        return cls.load(_FITTED / cls.kind / f"{name}.json")
    values, sigmas, source, size = cls.published[name]
    return cast(SomeSchedule, cast(Any, cls)(values, sigmas, size, name, provenance={"source": source}))


def _image_size(size: object) -> tuple[int, int]:
    sides = list(size) if isinstance(size, tuple | list) else [size, size]
    if len(sides) != 2:
        raise ShapeError(f"image_size is {size!r}; allowed are one side and (height, width)")
    height, width = (integer("image side", side) for side in sides)
    return height, width


def _listed(name: str, values: object) -> list[Any]:
    """The entries of a flat list, tuple, array or tensor as Python objects."""
    entries = values.tolist() if isinstance(values, np.ndarray) or is_torch(values) else values
    if not isinstance(entries, list | tuple):
        raise DTypeError(f"{name} is {values!r:.80}; allowed are lists and arrays")
    if len(entries) == 0:
        raise ScheduleError(f"{name} is empty; at least one value is needed")
    return list(entries)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        # Of bytes, json knows the encoding by their start, so that a byte-order mark does no harm.
        record = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no schedule file {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ScheduleError(f"{path} is no JSON file: {error}") from error
    if not isinstance(record, dict):
        raise ScheduleError(f"{path} is no schedule: it holds a {type(record).__name__}, not an object")
    return record
