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
from pspc_rs.data.labels import class_labels
from pspc_rs.errors import DataError, DTypeError, ShapeError, warn
from pspc_rs.extras import import_pillow
from pspc_rs.files import as_path, decode_errors, open_zip, read_limited, read_member, replacing, require_path
from pspc_rs.progress import Progress, reporting

_LABELS_FILE = "dataset.json"

# An unpacked EDM archive spreads its images over numbered folders of a thousand, which are not classes.
_EDM_NAME = re.compile(r"\d{5}/img\d{8}\.\w+")

_JUNK = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})

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
        names, members, labels = zip_images(archive, file, needed=classes is not None)
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
    _require_images(names, folder)
    return names, _folder_labels(folder, names, needed=needed)


def zip_images(
    archive: zipfile.ZipFile, source: Path, *, needed: bool
) -> tuple[list[str], dict[str, zipfile.ZipInfo], NDArray[np.int64] | None]:
    """The images of an archive: their sorted names, their members by name, and their labels.

    Args:
        archive: the archive.
        source: its path, for messages.
        needed: refuse labels that are no classes.

    Raises:
        DataError: there are no images, or the labels are damaged.
    """
    members = {member_name(member.filename): member for member in archive.infolist() if _is_image(member)}
    names = sorted(members)
    _require_images(names, source)
    return names, members, _zip_labels(archive, names, needed=needed)


def _require_images(names: list[str], source: Path) -> None:
    if not names:
        raise NoImagesError(f"{source} holds no images; known are the suffixes {', '.join(sorted(SUFFIXES))}")


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
    positions = np.arange(len(names))[choose(len(names), labels, *choice)]
    images = decode_images([image_file(names[i]) for i in positions], source.name, progress)
    return images, None if labels is None else labels[positions]


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
        real = {name: (place / name).resolve() for name in subfolders if not _is_junk_name(name)}
        subfolders[:] = [name for name, target in real.items() if target not in on_the_way]
        above |= {place / name: on_the_way | {real[name]} for name in subfolders}
        links += sum((place / name).is_symlink() for name in subfolders)
        if links > _MOST_LINKS:
            raise DataError(f"{folder} has more than {_MOST_LINKS} linked folders; do they lead to each other?")
        inside = place.relative_to(folder)
        kept = (name for name in files if not _is_junk_name(name) and Path(name).suffix.lower() in SUFFIXES)
        names += [(inside / name).as_posix() for name in kept]
    return names


def member_name(stored: str) -> str:
    r"""The name of a member of a ZIP archive, also where a Windows program wrote backslashes.

    Example:
        >>> member_name("cat\\1.png"), member_name("./cat/1.png")
        ('cat/1.png', 'cat/1.png')
    """
    return str(PurePosixPath(stored.replace("\\", "/")))


def is_junk(path: PurePosixPath) -> bool:
    """Whether a file or one of its folders is hidden, or one that macOS, Windows or a NAS puts beside others.

    Example:
        >>> is_junk(PurePosixPath("@eaDir/1.png/thumb.jpg")), is_junk(PurePosixPath("cat/1.png"))
        (True, False)
    """
    return any(_is_junk_name(part) for part in path.parts)


def _is_junk_name(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member_name(member.filename))
    return not member.filename.endswith(("/", "\\")) and not is_junk(path) and path.suffix.lower() in SUFFIXES


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


def _zip_labels(archive: zipfile.ZipFile, names: list[str], *, needed: bool) -> NDArray[np.int64] | None:
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    outer = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""
    files = {member_name(member.filename): member for member in archive.infolist()}
    for prefix in dict.fromkeys(("", outer)):
        member = files.get(prefix + _LABELS_FILE)
        if member is not None:
            inner = [name.removeprefix(prefix) for name in names]
            what = f"{archive.filename}, member {member.filename}"
            return _parse_labels(read_member(archive, member), inner, what, needed=needed)
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
