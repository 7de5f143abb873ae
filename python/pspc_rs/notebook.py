"""What notebooks show of data sets, denoisers and posteriors: a few pictures, the repr, and a table of numbers."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pspc_rs.images import image_grid

_SHOWN = 12
_HEIGHT = 64  # of a picture, in pixels of the page
_CHANNELS = (1, 3, 4)


def some_of(number: int) -> NDArray[np.int64]:
    """Indices of the images that stand for a data set of this size: at most twelve, evenly spread.

    Example:
        >>> some_of(3), len(some_of(10**6))
        (array([0, 1, 2]), 12)
    """
    return np.linspace(0, number - 1, min(number, _SHOWN)).astype(np.int64)


def pictures(x: object) -> str:
    """Images side by side as an HTML image, whose PNG is in it; nothing where they are neither grey nor coloured.

    Args:
        x: float images [batch, channels, height, width] in [-1, 1] units, clipped for display.

    Example:
        >>> pictures(np.zeros((2, 1, 4, 4), np.float32))[:32]
        '<img src="data:image/png;base64,'
        >>> pictures(np.zeros((2, 2, 4, 4), np.float32))
        ''
    """
    images = np.asarray(x)
    if len(images) == 0 or images.shape[1] not in _CHANNELS:
        return ""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image_grid(images, columns=len(images), padding=1)).save(stream, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    style = f"height: {_HEIGHT}px; max-width: 100%; object-fit: contain; image-rendering: pixelated"
    return f'<img src="{source}" alt="{len(images)} images" style="{style}">'


def described(thing: object, shown: str = "") -> str:
    """An object as HTML: its repr, and what is shown of it below.

    Args:
        thing: the object.
        shown: HTML of pictures or a table.

    Example:
        >>> described("<b>")
        '<div><code style="white-space: pre-wrap">&#x27;&lt;b&gt;&#x27;</code><br></div>'
    """
    return f'<div><code style="white-space: pre-wrap">{html.escape(repr(thing))}</code><br>{shown}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as HTML; floats are written with three digits.

    Example:
        >>> table(["image"], [[3]])
        '<table><tr><th>image</th></tr><tr><td>3</td></tr></table>'
    """

    def cell(tag: str, value: object) -> str:
        return f"<{tag}>{html.escape(f'{value:.3g}' if isinstance(value, float) else str(value))}</{tag}>"

    head = "".join(cell("th", name) for name in columns)
    body = "".join(f"<tr>{''.join(cell('td', value) for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
