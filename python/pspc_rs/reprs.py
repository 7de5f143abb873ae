"""The ``__repr__`` of every public object: its class, what it was made from, and its parameters."""


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
