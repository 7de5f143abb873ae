"""Image files in folders and in ZIP archives, in the layout of NVIDIA's EDM and StyleGAN tools: reading and writing."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.decode import SUFFIXES, ImageFile, decode_images
from pspc_rs.data.image_arrays import choose
from pspc_rs.data.image_set import ImageSet
from pspc_rs.errors import DataError, DTypeError, ShapeError
from pspc_rs.extras import import_pillow
from pspc_rs.files import as_path, decode_errors, open_zip, read_limited, read_member, replacing, require_path
from pspc_rs.progress import Progress, reporting

_LABELS_FILE = "dataset.json"

# An unpacked EDM archive spreads its images over numbered folders of a thousand, which are not classes.
_EDM_NAME = re.compile(r"\d{5}/img\d{8}\.\w+")

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP_UNIX = 3


def read_folder(
    path: str | os.PathLike[str],
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
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
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8 [N, C, H, W], channels as in `read_edm_zip`.

    Raises:
        DataError: there are no images, or one is damaged, has another size or mode than the first, 16 bits per channel,
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
    folder = require_path(path)
    names = sorted(_image_names(folder))
    labels = _folder_labels(folder, names)
    images, labels = _decode_chosen(
        folder,
        names,
        labels,
        lambda name: ImageFile(str(folder / name), partial(read_limited, folder / name)),
        choice=(max_size, classes),
        progress=progress,
    )
    return ImageSet(images, labels, xflip, name=folder.name)


def read_edm_zip(
    path: str | os.PathLike[str],
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
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
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8 [N, C, H, W] with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). Palette images
        become RGB, or RGBA where they have transparent colours.

    Raises:
        DataError: the archive is damaged or holds no images, or an image is damaged, has another size or mode than
            the first, 16 bits per channel, or a side above 4096.
        MissingFileError: there is no such file.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = ImageSet(np.zeros((3, 1, 4, 4), np.uint8), labels=[5, 6, 6])
        ...     read_edm_zip(save_edm_zip(data, pathlib.Path(folder, "a.zip")), classes={6})
        ImageSet('a', 2 images of [1, 4, 4] uint8, 1 class, xflip=False)
    """
    with open_zip(path) as archive:
        file = Path(path)
        members = {member.filename: member for member in archive.infolist() if _is_image(member)}
        names = sorted(members)
        labels = _zip_labels(archive, names)
        images, labels = _decode_chosen(
            file,
            names,
            labels,
            lambda name: ImageFile(f"{file}, member {name}", partial(read_member, archive, members[name])),
            choice=(max_size, classes),
            progress=progress,
        )
    return ImageSet(images, labels, xflip, name=file.stem)


def save_edm_zip(data: ImageSet, path: str | os.PathLike[str], *, progress: bool | Progress | None = None) -> Path:
    """The path of a new archive in EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json``.

    Members are stored, PNGs are written without compression in mode L, RGB or RGBA. The same images give the same
    bytes. Flips are not written; they are an option of reading.

    Args:
        data: uint8 images with 1, 3 or 4 channels.
        path: the archive; one that exists is replaced once the new one is complete.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

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
        reporting(progress, "img", f"writing {target.name}", data.num_stored) as report,
    ):
        names = []
        for index, image in enumerate(data.images):
            names.append(f"{index // 1000:05d}/img{index:08d}.png")
            archive.writestr(_new_member(names[-1]), _png(image))
            report(index + 1, data.num_stored)
        labels = None if data.labels is None else [list(pair) for pair in zip(names, data.labels.tolist(), strict=True)]
        archive.writestr(_new_member(_LABELS_FILE), json.dumps({"labels": labels}))
    return target


def _decode_chosen(
    source: Path,
    names: list[str],
    labels: NDArray[np.int64] | None,
    image_file: Callable[[str], ImageFile],
    *,
    choice: tuple[int | None, Collection[int] | None],
    progress: bool | Progress | None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """The images of a folder or archive that (max_size, classes) choose, and their labels; no others are decoded."""
    if not names:
        raise DataError(f"{source} holds no images; known are the suffixes {', '.join(sorted(SUFFIXES))}")
    positions = np.arange(len(names))[choose(len(names), labels, *choice)]
    images = decode_images([image_file(names[i]) for i in positions], source.name, progress)
    return images, None if labels is None else labels[positions]


def _image_names(folder: Path) -> list[str]:
    """The images below a folder, relative to it, with forward slashes."""
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


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not member.filename.endswith("/") and not hidden and path.suffix.lower() in SUFFIXES


def _folder_labels(folder: Path, names: list[str]) -> NDArray[np.int64] | None:
    file = folder / _LABELS_FILE
    if file.exists():
        return _parse_labels(read_limited(file), names, str(file))
    if not all("/" in name for name in names) or all(_EDM_NAME.fullmatch(name) for name in names):
        return None
    first_levels = [name.split("/", 1)[0] for name in names]
    return np.unique(np.array(first_levels), return_inverse=True)[1].astype(np.int64)


def _zip_labels(archive: zipfile.ZipFile, names: list[str]) -> NDArray[np.int64] | None:
    try:
        member = archive.getinfo(_LABELS_FILE)
    except KeyError:
        return None
    text = read_member(archive, member)
    return _parse_labels(text, names, f"{archive.filename}, member {_LABELS_FILE}")


def _parse_labels(text: bytes, names: Sequence[str], what: str) -> NDArray[np.int64] | None:
    """The labels in the order of the names, from {"labels": [[name, label], ...]}; None from {"labels": null}.

    Names of no image are ignored.
    """
    with decode_errors(what):
        content = json.loads(text)
    entries = content.get("labels") if isinstance(content, dict) else content
    if entries is None:
        return None
    if not isinstance(content, dict) or not isinstance(entries, list):
        raise DataError(f'{what} is not of the form {{"labels": [[name, label], ...]}} or {{"labels": null}}')
    known = _as_mapping(entries, what)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"{what} has no label for {missing[0]} ({len(missing)} of {len(names)} images have none)")
    return np.array([known[name] for name in names], np.int64)


def _as_mapping(entries: list[Any], what: str) -> dict[str, int]:
    known: dict[str, int] = {}
    for entry in entries:
        match entry:
            case [str(name), int(label)] if not isinstance(label, bool) and -(2**63) <= label < 2**63:
                pass
            case _:
                raise DataError(f"{what} holds the entry {str(entry)[:80]}; allowed are [name, integer]")
        if known.setdefault(name, label) != label:
            raise DataError(f"{what} gives {name} the labels {known[name]} and {label}")
    return known


def _new_member(name: str) -> zipfile.ZipInfo:
    # With fixed time, system and rights, the same images give the same bytes on every machine.
    member = zipfile.ZipInfo(name, _ZIP_EPOCH)
    member.create_system = _ZIP_UNIX
    member.external_attr = 0o644 << 16
    return member


def _png(image: NDArray[np.generic]) -> bytes:
    Image = import_pillow()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
