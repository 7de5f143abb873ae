"""Images in a ZIP archive, as NVIDIA's EDM and StyleGAN tools write them."""

import os
import zipfile
from collections.abc import Collection
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.arrays import choose
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.decode import SUFFIXES, ImageFile, decode_images
from pspc_rs.data.readers.files import existing, open_zip, read_member
from pspc_rs.data.readers.labels_json import LABELS_FILE, parse_labels
from pspc_rs.errors import DataError


def read_edm_zip(
    path: str | os.PathLike[str],
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | None = None,
) -> ImageSet:
    """The images of an archive in EDM's layout, in the order of their sorted names.

    Members are stored or deflated images of one size and mode, usually ``00000/img00000000.png``; the label of each
    comes from ``dataset.json`` at the top, if there is one. Nothing is extracted, each image is decoded once, and only
    those wanted are.

    Args:
        path: the archive.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        progress: show a progress bar; None shows it on a terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8 [N, C, H, W] with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). Palette images
        become RGB, or RGBA where they have transparent colours.

    Raises:
        DataError: the archive is damaged or holds no images, or an image is damaged, has another size or mode than
            the first, 16 bits a channel, or a side above 4096.
        MissingFileError: there is no such file.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> from pspc_rs.data import save_edm_zip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = ImageSet(np.zeros((3, 1, 4, 4), np.uint8), labels=[5, 6, 6])
        ...     read_edm_zip(save_edm_zip(data, pathlib.Path(folder, "a.zip")), classes={6})
        ImageSet('a', 2 images of [1, 4, 4] uint8, 1 class, xflip=False)
    """
    file = existing(path)
    with open_zip(file) as archive:
        members = {member.filename: member for member in archive.infolist() if _is_image(member)}
        names = sorted(members)
        if not names:
            raise DataError(f"{file} holds no images; known are the suffixes {', '.join(sorted(SUFFIXES))}")
        labels = _labels(archive, names)
        positions = np.arange(len(names))[choose(len(names), labels, max_size, classes)]
        files = [
            ImageFile(f"{file}, member {names[i]}", partial(read_member, archive, members[names[i]])) for i in positions
        ]
        images = decode_images(files, file.name, progress)
    return ImageSet(images, None if labels is None else labels[positions], xflip, name=file.stem)


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not member.filename.endswith("/") and not hidden and path.suffix.lower() in SUFFIXES


def _labels(archive: zipfile.ZipFile, names: list[str]) -> NDArray[np.int64] | None:
    try:
        member = archive.getinfo(LABELS_FILE)
    except KeyError:
        return None
    text = read_member(archive, member)
    return parse_labels(text, names, f"{archive.filename}, member {LABELS_FILE}")
