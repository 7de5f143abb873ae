"""Words for messages: the ``__repr__`` of every public object, and lists of names that stay short."""

from collections.abc import Sequence


def build_repr(thing: object, *parts: object, **parameters: object) -> str:
    """``Class(part, parameter=value)``.

    Args:
        thing: the object that is described.
        parts: strings stand as they are, everything else by its own repr.
        parameters: stand as ``name=repr``.

    Example:
        >>> class Gaussian: ...
        >>> build_repr(Gaussian(), "12 pixels", rank=3)
        'Gaussian(12 pixels, rank=3)'
    """
    shown = [part if isinstance(part, str) else repr(part) for part in parts]
    shown += [f"{name}={value!r}" for name, value in parameters.items()]
    return f"{type(thing).__name__}({', '.join(shown)})"


def a_few(names: Sequence[object], most: int = 3) -> str:
    """The first of some names, and how many more there are.

    Example:
        >>> a_few(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
