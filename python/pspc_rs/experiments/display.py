"""How denoisers are called and coloured wherever they are shown: the same in every figure, chart and table."""

from collections.abc import Iterable

_NAMES = {
    "empirical": "Empirical",
    "network": "Network",
    "gaussian": "Gaussian",
    "pspc_sq": "PSPC-Square",
    "pspc_flex": "PSPC-Flex",
    "cfdm": "CFDM",
    "snis": "SNIS",
    "piecewise": "Piecewise",
    "ls": "LS",
    "els": "ELS",
    "bbels": "BBELS",
    "soft": "Soft PSPC",
    "pca": "PCA locality",
}
# Readable on white and on black.
_COLOURS = {
    "empirical": "#2f81f7",
    "gaussian": "#d2691e",
    "pspc_sq": "#2da44e",
    "pspc_flex": "#c03a76",
    "cfdm": "#8a63d2",
    "snis": "#8c7300",
    "ls": "#008b8b",
    "network": "#777f88",
    "els": "#d1242f",
    "bbels": "#5c7cfa",
    "soft": "#6b8e23",
    "pca": "#a0522d",
}


def display_name(name: str) -> str:
    """What a denoiser of the command line is called where people read it; other names stay as they are.

    Example:
        >>> display_name("pspc_sq"), display_name("mine")
        ('PSPC-Square', 'mine')
    """
    return _NAMES.get(name, name)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for every name: denoisers of the command line always have theirs, others get those that are left.

    Example:
        >>> colours_of(["mine", "pspc_sq"])
        {'mine': '#2f81f7', 'pspc_sq': '#2da44e'}
    """
    distinct = list(dict.fromkeys(names))
    taken = {_COLOURS[name] for name in distinct if name in _COLOURS}
    free = [colour for colour in _COLOURS.values() if colour not in taken] or list(_COLOURS.values())
    others = [name for name in distinct if name not in _COLOURS]
    found = {name: free[index % len(free)] for index, name in enumerate(others)}
    return {name: _COLOURS.get(name) or found[name] for name in distinct}
