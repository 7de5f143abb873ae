"""Image files in folders and in ZIP archives, in the layout of NVIDIA's EDM and StyleGAN tools: reading and writing."""

import io
import json
import os
import re
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import flag
from pspc_rs.data.decode import SUFFIXES, decode_images
from pspc_rs.data.image_arrays import Choice, choose
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.labels import class_labels
from pspc_rs.data.pixel_cache import Decoded, PixelCache
from pspc_rs.data.readers.archives import FolderImages, ZipArchive, ZipImages, has_image_suffix, is_junk, member_name
from pspc_rs.errors import DataError, DTypeError, ShapeError, warn
from pspc_rs.extras import import_pillow
from pspc_rs.files import as_path, decode_errors, read_limited, replacing, require_path
from pspc_rs.progress import Progress, reporting

_LABELS_FILE = "dataset.json"

# An unpacked EDM archive spreads its images over numbered folders of a thousand, which are not classes.
_EDM_NAME = re.compile(r"\d{5}/img\d{8}\.\w+")

_MOST_LINKS = 100_000

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP_UNIX = 3


class NoImagesError(DataError):
    """A folder or an archive holds no image files."""


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
    of an unpacked EDM archive (``00000/img00000000.png``) do not count as classes. Linked folders are entered, but not
    those that lead back to a folder on their own path. Passed over are hidden files and what macOS, Windows and NAS
    systems put beside images (``__MACOSX``, ``@eaDir``). EXIF rotations are not applied.

    ``dataset.json`` may hold labels of the kinds that `read_npz` takes.

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
    names, labels = folder_images(folder, needed=classes is not None)
    chosen = choose(len(names), labels, max_size, classes)
    images = decode_images(FolderImages(folder, _at(names, chosen)), folder.name, progress)
    return ImageSet(images, None if labels is None else labels[chosen], xflip, name=folder.name)


def read_edm_zip(
    path: str | os.PathLike[str],
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
    cache: bool = True,
) -> ImageSet:
    """The images of an archive in EDM's layout, in the order of their sorted names.

    Members are stored or deflated images of one size and mode, usually ``00000/img00000000.png``; the label of each
    comes from ``dataset.json`` at the top, if there is one. An archive of a folder is read like the folder (see
    `read_folder`): if all images lie in one folder, names and ``dataset.json`` are looked for in it; without
    ``dataset.json``, first-level folders are classes. Backslashes in names, as Windows programs write them, count as
    slashes. Nothing is extracted, each image is decoded once, and only those wanted are.

    Args:
        path: the archive.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.
        cache: keep the decoded pixels in the user's cache folder, if they are 16 MiB or more and all were asked for,
            and take them from there, mapped into memory; an archive that was changed is decoded anew. The variable
            PSPC_CACHE_GB bounds what is kept in all, 4 by default; 0 keeps none. Where the folder cannot be written, a
            `PspcWarning` says so once.

    Returns:
        ImageSet of uint8 [N, C, H, W] with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). Palette images
        become RGB, or RGBA where they have transparent colours.

    Raises:
        InvalidValueError: see `load`; or PSPC_CACHE_GB is no number from 0 on.
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
    with ZipArchive(as_path(path)) as archive:
        entry = _cache_entry(archive) if flag("cache", cache) else None
        images, labels = _read_zip(archive, entry, (max_size, classes), progress)
    return ImageSet(images, labels, xflip, name=archive.path.stem)


def save_edm_zip(data: ImageSet, path: str | os.PathLike[str], *, progress: bool | Progress | None = None) -> Path:
    """The path of a new archive in EDM's layout: ``00000/img00000000.png`` ... and ``dataset.json``.

    Members are stored, PNGs are written without compression in mode L, RGB or RGBA. The same images give the same
    bytes. Flips are not written; they are an option of reading. Nor is a log prior, which a `PspcWarning` says.

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
    if data.log_prior is not None:
        warn("the log_prior of the data set is not written: EDM archives hold images and labels only")
    target = as_path(path)
    with (
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
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


def folder_images(folder: Path, *, needed: bool) -> tuple[list[str], NDArray[np.int64] | None]:
    """The images below a folder, sorted paths in it with forward slashes, and their labels.

    Args:
        folder: the folder.
        needed: refuse labels that are no classes.

    Raises:
        DataError: there are no images, or the labels are damaged.
    """
    names = sorted(_image_names(folder))
    labels = _folder_labels(folder, names, needed=needed)
    _require_images(names, folder)
    return names, labels


def zip_images(archive: ZipArchive, *, needed: bool) -> tuple[list[str], dict[str, int], NDArray[np.int64] | None]:
    """The images of an archive: their sorted names, the positions of members by name, and their labels.

    Args:
        archive: the archive.
        needed: refuse labels that are no classes.

    Raises:
        DataError: there are no images, or the labels are damaged.
    """
    members = archive.images()
    names = sorted(members)
    _require_images(names, archive.path)
    return names, members, _zip_labels(archive, names, needed=needed)


def _cache_entry(archive: ZipArchive) -> PixelCache | None:
    """Where the decoded images of an archive are kept; None for archives without a plain directory."""
    directory = archive.directory()
    return None if directory is None else PixelCache(archive.path, directory)


def _read_zip(
    archive: ZipArchive,
    entry: PixelCache | None,
    choice: tuple[int | None, Collection[int] | None],
    progress: bool | Progress | None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """The images that (max_size, classes) choose, and their labels; no others are decoded."""
    kept = None if entry is None else entry.read()
    if kept is not None and kept.labels is not None:
        chosen = choose(len(kept.images), kept.labels, *choice)
        return kept.images[chosen], kept.labels[chosen]
    # Where none are kept there may be labels that are no classes, which a warning or an error says each time.
    names, members, labels = zip_images(archive, needed=choice[1] is not None)
    chosen = choose(len(names), labels, *choice)
    if kept is not None:
        images = kept.images[chosen]
    else:
        wanted = [members[name] for name in _at(names, chosen)]
        images = decode_images(ZipImages(archive, wanted), archive.path.name, progress)
        if entry is not None and len(wanted) == len(names):
            entry.keep(Decoded(images, labels))
    return images, None if labels is None else labels[chosen]


def _require_images(names: list[str], source: Path) -> None:
    if not names:
        raise NoImagesError(f"{source} holds no images; known are the suffixes {', '.join(sorted(SUFFIXES))}")


def _at(names: list[str], chosen: Choice) -> list[str]:
    return names[chosen] if isinstance(chosen, slice) else [names[index] for index in chosen]


def _image_names(folder: Path) -> list[str]:
    """The images below a folder, relative to it, with forward slashes."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    names, links = [], 0
    # The folders on the way to each place, so that a link that leads back to one of them is not followed for ever.
    above = {folder: frozenset({folder.resolve()})}
    for walked, subfolders, files in os.walk(folder, followlinks=True, onerror=refuse):
        place = Path(walked)
        on_the_way = above.pop(place)
        real = {name: (place / name).resolve() for name in subfolders if not is_junk(name)}
        subfolders[:] = [name for name, target in real.items() if target not in on_the_way]
        above |= {place / name: on_the_way | {real[name]} for name in subfolders}
        links += sum((place / name).is_symlink() for name in subfolders)
        if links > _MOST_LINKS:
            raise DataError(f"{folder} has more than {_MOST_LINKS} linked folders; do they lead to each other?")
        inside = place.relative_to(folder)
        kept = (name for name in files if not is_junk(name) and has_image_suffix(name))
        names += [(inside / name).as_posix() for name in kept]
    return names


def _folder_labels(folder: Path, names: list[str], *, needed: bool) -> NDArray[np.int64] | None:
    file = folder / _LABELS_FILE
    if file.exists():
        return _parse_labels(read_limited(file), names, str(file), needed=needed)
    return _class_folders(names)


def _class_folders(names: Sequence[str]) -> NDArray[np.int64] | None:
    """Labels by first-level folder; None if an image lies in none, or if the folders are those of an EDM archive."""
    if not all("/" in name for name in names) or all(_EDM_NAME.fullmatch(name) for name in names):
        return None
    first_levels = [name.split("/", 1)[0] for name in names]
    return np.unique(np.array(first_levels), return_inverse=True)[1].astype(np.int64)


def _zip_labels(archive: ZipArchive, names: list[str], *, needed: bool) -> NDArray[np.int64] | None:
    tops = {name.partition("/")[0] for name in names}
    outer = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""
    members = archive.members()
    for prefix in dict.fromkeys(("", outer)):
        member = members.get(prefix + _LABELS_FILE)
        if member is not None:
            inner = [name.removeprefix(prefix) for name in names]
            return _parse_labels(archive.read(member), inner, archive.describe(member), needed=needed)
    return _class_folders([name.removeprefix(outer) for name in names])


def _parse_labels(text: bytes, names: Sequence[str], what: str, *, needed: bool) -> NDArray[np.int64] | None:
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
    return class_labels([known[name] for name in names], len(names), f"the labels in {what}", needed=needed)


def _as_mapping(entries: list[Any], what: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for entry in entries:
        match entry:
            case [str(stored), label] if not (isinstance(label, int) and not -(2**63) <= label < 2**63):
                name = member_name(stored)
            case _:
                raise DataError(f"{what} holds the entry {str(entry)[:80]}; allowed are [name, integer]")
        earlier = known.setdefault(name, label)
        if earlier is not label and earlier != label:
            raise DataError(f"{what} gives {name} the labels {earlier!r:.80} and {label!r:.80}")
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
