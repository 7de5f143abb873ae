"""Writing an ImageSet as a ZIP archive in EDM's layout."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.progress import progress_bar
from pspc_rs.data.readers.labels_json import LABELS_FILE
from pspc_rs.errors import DTypeError, ShapeError
from pspc_rs.files import as_path, replacing

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def save_edm_zip(data: ImageSet, path: str | os.PathLike[str], *, progress: bool | None = None) -> Path:
    """The path of a new archive in EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json``.

    Members are stored, PNGs are written without compression in mode L, RGB or RGBA. The same images give the same
    bytes. Flips are not written: they are an option of reading.

    Args:
        data: uint8 images with 1, 3 or 4 channels.
        path: the archive; one that exists is replaced once the new one is complete.
        progress: show a progress bar; None shows it on a terminal, for more than 2000 images.

    Raises:
        DTypeError: the images are floats.
        OutputError: the archive cannot be written.
        ShapeError: another number of channels.

    Example:
        >>> import numpy as np, pathlib, tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_edm_zip(ImageSet(np.zeros((2, 3, 4, 4), np.uint8)), pathlib.Path(folder, "a.zip"))
        ...     zipfile.ZipFile(path).namelist()
        ['00000/img00000000.png', '00000/img00000001.png', 'dataset.json']
    """
    if not isinstance(data, ImageSet):
        raise DTypeError(f"data is a {type(data).__name__}; allowed is an ImageSet")
    if data.dtype != np.uint8:
        raise DTypeError(f"data holds {data.dtype} pixels; EDM archives hold uint8 images only")
    if data.channels not in (1, 3, 4):
        raise ShapeError(f"data has {data.channels} channels; EDM archives hold images with 1, 3 or 4")
    target = as_path(path)
    with (
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as archive,
        progress_bar(data.num_stored, f"writing {target.name}", progress) as bar,
    ):
        names = []
        for index, image in enumerate(data.images):
            names.append(f"{index // 1000:05d}/img{index:08d}.png")
            archive.writestr(_member(names[-1]), _png(image))
            bar.update(1)
        labels = None if data.labels is None else [list(pair) for pair in zip(names, data.labels.tolist(), strict=True)]
        archive.writestr(_member(LABELS_FILE), json.dumps({"labels": labels}))
    return target


def _member(name: str) -> zipfile.ZipInfo:
    # Time, system and rights are fixed, so that the same images give the same bytes anywhere.
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system = _UNIX
    member.external_attr = 0o644 << 16
    return member


def _png(image: NDArray[np.generic]) -> bytes:
    from PIL import Image

    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
