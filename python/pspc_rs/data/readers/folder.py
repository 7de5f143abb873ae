"""Images in a folder."""

import os
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.arrays import choose
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.decode import SUFFIXES, ImageFile, decode_images
from pspc_rs.data.readers.files import damage_named, existing, read_limited
from pspc_rs.data.readers.labels_json import LABELS_FILE, parse_labels
from pspc_rs.errors import DataError

# An unpacked EDM archive spreads its images over numbered folders of a thousand; those are no classes.
_EDM_NAME = re.compile(r"\d{5}/img\d{8}\.\w+")


def read_folder(
    path: str | os.PathLike[str],
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | None = None,
) -> ImageSet:
    """The still images below a folder, in the order of their sorted paths (with forward slashes).

    Labels come from ``dataset.json`` in the folder. Without that file, and when every image lies in a subfolder, the
    label of an image is the index of its first-level subfolder among the sorted names of those; the numbered folders
    of an unpacked EDM archive (``00000/img00000000.png``) do not count as classes. Hidden files are passed over,
    linked folders not entered, EXIF rotations not applied.

    Args:
        path: the folder.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        progress: show a progress bar; None shows it on a terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8 [N, C, H, W], channels as in `read_edm_zip`.

    Raises:
        DataError: there are no images, or one is damaged, has another size or mode than the first, 16 bits a channel,
            or a side above 4096.
        MissingFileError: there is no such folder.

    Example:
        >>> import tempfile, pathlib
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for kind in ("cat", "dog"):
        ...         pathlib.Path(folder, kind).mkdir()
        ...         Image.new("RGB", (8, 6)).save(pathlib.Path(folder, kind, "1.png"))
        ...     data = read_folder(folder)
        >>> data.shape, data.labels
        ((3, 6, 8), array([0, 1]))
    """
    folder = existing(path)
    with damage_named(folder):
        names = sorted(_image_names(folder))
    if not names:
        raise DataError(f"{folder} holds no images; known are the suffixes {', '.join(sorted(SUFFIXES))}")
    labels = _labels(folder, names)
    positions = np.arange(len(names))[choose(len(names), labels, max_size, classes)]
    files = [ImageFile(str(folder / names[i]), partial(read_limited, folder / names[i])) for i in positions]
    images = decode_images(files, folder.name, progress)
    return ImageSet(images, None if labels is None else labels[positions], xflip, name=folder.name)


def _image_names(folder: Path) -> list[str]:
    names = []
    for place, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(place).relative_to(folder)
        names += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return names


def _labels(folder: Path, names: list[str]) -> NDArray[np.int64] | None:
    file = folder / LABELS_FILE
    if file.exists():
        return parse_labels(read_limited(file), names, str(file))
    if not all("/" in name for name in names) or all(_EDM_NAME.fullmatch(name) for name in names):
        return None
    first_levels = [name.split("/", 1)[0] for name in names]
    return np.unique(np.array(first_levels), return_inverse=True)[1].astype(np.int64)
