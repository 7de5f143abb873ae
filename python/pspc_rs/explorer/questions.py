"""What a view is asked: text of an address as checked values."""

from collections.abc import Mapping
from dataclasses import dataclass

from pspc_rs.arrays import MAX_SIGMA, MIN_SIGMA
from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.errors import InvalidValueError

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Question:
    """A noisy image: which one it is decides everything that is shown of it.

    Attributes:
        start: "image" for noise added to an image, "run" for a state of a sampling run of ``runner``.
        image: which image noise is added to.
        sigma: the noise level.
        step: which step of the run.
        seed: of the noise.
        leave_out: whether the image does not count as a training image.
        runner: the denoiser that samples.
    """

    start: str
    image: int
    sigma: float
    step: int
    seed: int
    leave_out: bool
    runner: str


class Asked:
    """The values that an address asks with, as text by name; each is checked when it is taken.

    Args:
        values: by name.
        known: the names that there are.

    Raises:
        InvalidValueError: there is another name.

    Example:
        >>> Asked({"image": "3"}, ["image"]).integer("image", 0, 9)
        3
        >>> Asked({"image": "ten"}, ["image"]).integer("image", 0, 9)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: image is 'ten'; allowed are integers from 0 to 9
    """

    def __init__(self, values: Mapping[str, str], known: list[str]) -> None:
        for name in values:
            if name not in known:
                raise InvalidValueError(f"{name!r:.80} is not known here; allowed are {', '.join(known)}")
        self._values = values

    def __repr__(self) -> str:
        return f"Asked({dict(self._values)!r})"

    def integer(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """An integer.

        Raises:
            InvalidValueError: it is none, out of range or not there.
        """
        text = self._text(name, None if default is None else str(default))
        try:
            number = int(text)
        except ValueError as error:
            raise InvalidValueError(f"{name} is {text!r:.80}; allowed are integers from {least} to {most}") from error
        return integer(name, number, least, most)

    def sigma(self, name: str, default: float) -> float:
        """A noise level.

        Raises:
            InvalidValueError: it is none, or out of range.
        """
        text = self._text(name, repr(default))
        try:
            number = float(text)
        except ValueError as error:
            raise InvalidValueError(f"{name} is {text!r:.80}; allowed are positive numbers") from error
        return real_number(name, number, least=MIN_SIGMA, most=MAX_SIGMA)

    def word(self, name: str, allowed: list[str], default: str | None = None) -> str:
        """One of some words.

        Raises:
            InvalidValueError: it is another one.
        """
        return one_of(name, self._text(name, default), allowed)

    def _text(self, name: str, default: str | None) -> str:
        text = self._values.get(name, default)
        if text is None:
            raise InvalidValueError(f"{name} is missing; it is needed here")
        return text
