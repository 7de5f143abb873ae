"""`ImageSet`: the images of a data set, with their labels and flips."""

import hashlib
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy
from pspc_rs.checks import flag, integer, shown
from pspc_rs.data.image_arrays import Choice, Pixels, as_choice, as_indices, as_log_prior, as_stored, choose, chunks
from pspc_rs.data.latents import Decode, Scaling, decode_latents
from pspc_rs.data.torch_dataset import read_items
from pspc_rs.errors import DTypeError, ImageIndexError
from pspc_rs.notebook import described, pictures, some_of
from pspc_rs.progress import Progress


def to_float(pixels: object) -> NDArray[np.float32]:
    """Pixels in the unit of the denoisers: uint8 mapped to [-1, 1], float32 unchanged.

    x = u / 127.5 - 1 for a byte u, so 0 becomes -1 and 255 becomes 1 (the convention of EDM, Karras et al. 2022).

    Args:
        pixels: array or tensor of any shape, uint8 or float32.

    Returns:
        float32 array of the same shape. Bytes give a new array; float32 is returned without a copy.

    Raises:
        DTypeError: the dtype is neither uint8 nor float32.

    Example:
        >>> import numpy as np
        >>> to_float(np.array([0, 51, 255], np.uint8))
        array([-1. , -0.6,  1. ], dtype=float32)
    """
    array = as_numpy(pixels, "pixels")
    if array.dtype == np.float32:
        return array
    if array.dtype != np.uint8:
        raise DTypeError(f"pixels have dtype {array.dtype}; allowed are uint8 and float32")
    x = array.astype(np.float32)
    x /= np.float32(127.5)
    x -= np.float32(1)
    return x


class ImageSet:
    """A data set {x_1 .. x_N} of images of one size, with optional labels and horizontal flips.

    Bytes u stand for pixels u / 127.5 - 1; float pixels are not changed. A C-contiguous uint8 or float32 array
    (a ``np.memmap`` included) is held without a copy, so a data set may be larger than memory; do not write to it
    afterwards. Flips are not stored: with `xflip` the set has 2 N images, all originals first, then all of them
    mirrored left to right.

    Args:
        images: [N, C, H, W], or [N, H, W] for grey images; uint8, or float32 / float64 / float16 (held as float32),
            finite and at most 1e6 in magnitude. Torch tensors are accepted.
        labels: N integers, or None.
        xflip: count horizontal flips as further data.
        name: what messages and records call the data set.
        log_prior: N numbers, finite and at most 1e6 in magnitude: log weights pi_n that the posteriors over images have
            beside the likelihoods, those of an image and its flip alike; None weighs all images the same. They need not
            be normalised. Denoisers count them; training draws images evenly, whatever their weights.
        channels_last: True for images [N, H, W, C], which are copied; False for [N, C, H, W], whatever they look like;
            None refuses images that look like [N, H, W, C].
        scaling: how latents were scaled, for images that are latents and scaled already; `decode` undoes it.

    Raises:
        DataError: there is no image.
        DTypeError: pixels, labels, log weights, flags or scaling of another type, or bytes with a scaling.
        InvalidValueError: a pixel or log weight is NaN, infinite or beyond 1e6.
        ShapeError: wrong number of axes, an empty axis, channels last, or not one label or log weight per image.

    Example:
        >>> import numpy as np
        >>> data = ImageSet(np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), labels=[0, 1], xflip=True)
        >>> data
        ImageSet('array', 2 images of [3, 2, 2] uint8, 2 classes, xflip=True)
        >>> len(data), data.num_stored, data[-1].dtype
        (4, 2, dtype('float32'))
    """

    def __init__(
        self,
        images: object,
        labels: object = None,
        xflip: bool = False,
        *,
        log_prior: object = None,
        name: str = "array",
        channels_last: bool | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise DTypeError(f"name is {name!r}; allowed is a string")
        self._images, self._labels = as_stored(images, labels, channels_last)
        self._log_prior = None if log_prior is None else as_log_prior(log_prior, len(self._images))
        self._xflip = flag("xflip", xflip)
        self._name = name
        self._scaling = _checked_scaling(scaling, self._images)

    @classmethod
    def from_torch(
        cls,
        dataset: Any,
        *,
        value_range: tuple[float, float] | None = None,
        xflip: bool = False,
        max_size: int | None = None,
        classes: Collection[int] | None = None,
        progress: bool | Progress | None = None,
        name: str | None = None,
        channels_last: bool | None = None,
    ) -> "ImageSet":
        """The images of a map-style torch `Dataset`: anything with ``__len__`` and ``__getitem__``.

        Each item is an image or a tuple that starts with (image, label). An image is a Pillow image, or a tensor or
        array [C, H, W] or [H, W] of uint8 or floats. Items are read once, in order; torch itself is not imported.
        Labels are integers, or of the other kinds that `read_npz` takes.

        Args:
            dataset: the data set.
            value_range: (low, high) of float pixels, mapped linearly to [-1, 1]: (0, 1) is what torchvision's
                ``ToTensor`` gives. None leaves floats unchanged.
            xflip: count horizontal flips as further data.
            max_size: at most so many images, counted after `classes`; without `classes` no further item is read.
            classes: labels to keep.
            progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
                terminal, for more than 2000 images.
            name: what messages call the data set; None takes the name of its class.
            channels_last: True for arrays [H, W, C]; None refuses those that look so. It is not for Pillow images.

        Returns:
            ImageSet of uint8 [N, C, H, W], or of float32 if the items are floats.

        Raises:
            DataError: there are no items, or only some have labels.
            DTypeError: images of mixed or other types; classes, but no class labels.
            InvalidValueError: pixels outside `value_range`, an unknown class.
            ShapeError: images of mixed shapes.

        Example:
            >>> import numpy as np
            >>> items = [(np.full((1, 2, 2), 0.25, np.float32), label) for label in (3, 4)]
            >>> data = ImageSet.from_torch(items, value_range=(0, 1), name="two")
            >>> data
            ImageSet('two', 2 images of [1, 2, 2] float32, 2 classes, xflip=False)
            >>> data.images[0, 0, 0]
            array([-0.5, -0.5], dtype=float32)
        """
        limit = None if max_size is None else integer("max_size", max_size)
        what = type(dataset).__name__ if name is None else name
        # Which items have a class is known only once all are read.
        most = limit if classes is None else None
        images, labels = read_items(
            dataset, most, value_range, what, progress, channels_last=channels_last, classes_needed=classes is not None
        )
        return cls(images, labels, xflip, name=what, channels_last=False).select(max_size, classes)

    @property
    def images(self) -> Pixels:
        """The stored images without their flips, uint8 or float32 [N, C, H, W], read-only."""
        return self._images

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The labels of the stored images, [N] int64, read-only, or None."""
        return self._labels

    @cached_property
    def classes(self) -> NDArray[np.int64] | None:
        """The labels that occur, ascending, int64 [classes], read-only; None without labels."""
        if self._labels is None:
            return None
        classes: NDArray[np.int64] = np.unique(self._labels)
        classes.flags.writeable = False
        return classes

    @property
    def log_prior(self) -> NDArray[np.float64] | None:
        """The log weights of the stored images, [N] float64, read-only; None where all images weigh the same."""
        return self._log_prior

    @property
    def scaling(self) -> Scaling | None:
        """How latents were scaled; None for pictures."""
        return self._scaling

    @property
    def xflip(self) -> bool:
        """Whether horizontal flips count as further data."""
        return self._xflip

    @property
    def name(self) -> str:
        """What messages and records call the data set."""
        return self._name

    @property
    def num_stored(self) -> int:
        """N, the number of images without their flips."""
        return len(self._images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.channels, self.height, self.width

    @property
    def channels(self) -> int:
        """Number of channels of every image."""
        return int(self._images.shape[1])

    @property
    def height(self) -> int:
        """Rows of every image."""
        return int(self._images.shape[2])

    @property
    def width(self) -> int:
        """Columns of every image."""
        return int(self._images.shape[3])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype the images are stored in, uint8 or float32."""
        return self._images.dtype

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that identify the data: SHA-256 over shape, dtype, pixels, labels, xflip and log weights.

        The name does not matter. The pixels are read once, in pieces, when the fingerprint is first needed.
        """
        header = f"{self._images.shape} {self.dtype.name} {self._labels is not None} {self._xflip}"
        digest = hashlib.sha256(header.encode())
        for part in chunks(self._images):
            digest.update(_bytes_of(self._images[part]))
        if self._labels is not None:
            digest.update(_bytes_of(self._labels))
        if self._log_prior is not None:
            # Only where there is one, so that data without have the fingerprint that they always had.
            digest.update(b"log_prior")
            digest.update(_bytes_of(self._log_prior))
        return digest.hexdigest()[:32]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickle of an earlier version has no log weights and no scaling.
        vars(self).update({"_log_prior": None, "_scaling": None, **state})
        # A pickle does not keep that an array is read-only.
        for array in (self._images, self._labels, self._log_prior, vars(self).get("classes")):
            if array is not None:
                array.flags.writeable = False

    def __copy__(self) -> "ImageSet":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ImageSet":
        """The set itself: it never changes, and may be as large as the memory."""
        return self

    def __len__(self) -> int:
        return self.num_stored * (1 + self._xflip)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise DTypeError(f"index {index!r} is not an integer; batch() and subset() take several")
        number = integer("index", index, None)
        if not -len(self) <= number < len(self):
            raise ImageIndexError(f"index {shown(number)} is outside a data set of {len(self)} images")
        image: NDArray[np.float32] = self.batch([number])[0]
        return image

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        num = self.num_stored
        images = f"{num} image{'s' * (num != 1)} of {list(self.shape)} {self.dtype.name}"
        kinds = 0 if self.classes is None else len(self.classes)
        labels = f"{kinds} class{'es' * (kinds != 1)}" if kinds else "no labels"
        prior = "" if self._log_prior is None else ", with log_prior"
        scaled = "" if self._scaling is None else f", {self._scaling}"
        return f"ImageSet({self._name!r}, {images}, {labels}{prior}{scaled}, xflip={self._xflip})"

    def _repr_html_(self) -> str:
        """What notebooks show: the repr, and a few of the images."""
        return described(self, pictures(self.batch(some_of(self.num_stored))))

    def batch(self, indices: object) -> NDArray[np.float32]:
        """The images at `indices`, mirrored where the index is N or more.

        Args:
            indices: integers in [-len(self), len(self)).

        Returns:
            float32 [B, C, H, W], a new array; pixels in [-1, 1] for stored bytes.

        Raises:
            DTypeError: the indices are not integers.
            InvalidValueError: an index is out of range.

        Example:
            >>> import numpy as np
            >>> ImageSet(np.array([[[[0, 255]]]], np.uint8), xflip=True).batch([0, 1])[:, 0, 0]
            array([[-1.,  1.],
                   [ 1., -1.]], dtype=float32)
        """
        positions = as_indices(indices, len(self))
        x = to_float(self._images[positions % self.num_stored])
        flipped = positions >= self.num_stored
        x[flipped] = x[flipped, :, :, ::-1]
        return x

    def decode(self, x: object, decode: Decode, batch: int = 64) -> NDArray[np.float32]:
        """Pictures of latents that a denoiser of this set has made, or of its images; see `decode_latents`.

        Args:
            x: latents [B, C, H, W], as this set has them.
            decode: the decoder of the autoencoder: a torch module, a method of one, or a function of arrays.
            batch: how many are decoded at once.

        Returns:
            float32 [B, channels, height, width] in [-1, 1] units, not clipped.

        Raises:
            DTypeError, InvalidValueError, ShapeError: see `decode_latents`.

        Example:
            >>> import numpy as np
            >>> data = ImageSet(np.full((2, 4, 3, 3), 0.5, np.float32), scaling=Scaling(0.5, shift=-1))
            >>> data.decode(data.batch([0]), lambda latents: latents[:, :3].repeat(8, axis=2).repeat(8, axis=3)).shape
            (1, 3, 24, 24)
        """
        return decode_latents(x, decode, self._scaling, batch)

    def subset(self, indices: object) -> "ImageSet":
        """The stored images at `indices`, with their labels and log weights, and the same `xflip`.

        A slice, or indices that follow each other, give a view of this set; anything else a copy of the chosen images.

        Args:
            indices: slice, or integers in [-N, N); an index given twice is stored twice.

        Raises:
            DataError: nothing is chosen.
            DTypeError: the indices are not integers.
            InvalidValueError: an index is out of range.

        Example:
            >>> import numpy as np
            >>> data = ImageSet(np.zeros((5, 1, 2, 2), np.uint8))
            >>> data.subset(slice(3)).num_stored, np.shares_memory(data.subset([2, 3]).images, data.images)
            (3, True)
        """
        return self._chosen(as_choice(indices, self.num_stored), self._xflip)

    def select(
        self, max_size: int | None = None, classes: Collection[int] | None = None, xflip: bool | None = None
    ) -> "ImageSet":
        """The first `max_size` stored images out of those whose label is in `classes`.

        Args:
            max_size: at most so many images; None keeps all.
            classes: labels to keep; None keeps all.
            xflip: count horizontal flips; None keeps the setting.

        Raises:
            DataError: classes are given, but the set has no labels.
            InvalidValueError: a class that no image has, or `max_size` below 1.

        Example:
            >>> import numpy as np
            >>> data = ImageSet(np.zeros((5, 1, 2, 2), np.uint8), labels=[0, 1, 2, 1, 1])
            >>> data.select(max_size=2, classes={1})
            ImageSet('array', 2 images of [1, 2, 2] uint8, 1 class, xflip=False)
        """
        flips = self._xflip if xflip is None else flag("xflip", xflip)
        return self._chosen(choose(self.num_stored, self._labels, max_size, classes), flips)

    def _chosen(self, choice: Choice, xflip: bool) -> "ImageSet":
        if isinstance(choice, slice) and choice == slice(0, self.num_stored) and xflip == self._xflip:
            return self
        labels = None if self._labels is None else self._labels[choice]
        log_prior = None if self._log_prior is None else self._log_prior[choice]
        return checked_set(self._images[choice], labels, xflip, self._name, log_prior=log_prior, scaling=self._scaling)


def checked_set(
    images: Pixels,
    labels: NDArray[np.int64] | None,
    xflip: bool,
    name: str,
    *,
    log_prior: NDArray[np.float64] | None = None,
    scaling: Scaling | None = None,
    fingerprint: str | None = None,
) -> ImageSet:
    """A data set of what has been checked before: nothing is read, nothing is copied, and all arrays become read-only.

    Args:
        images: C-contiguous [N, C, H, W] of uint8, or of float32 and finite.
        labels: one per image, or None.
        xflip: count horizontal flips as further data.
        name: what messages call the data set.
        log_prior: one per image, or None.
        scaling: of latents, or None.
        fingerprint: that of the data set, if it is known.

    Example:
        >>> checked_set(np.zeros((2, 1, 4, 4), np.uint8), None, False, "two", fingerprint="ab").fingerprint
        'ab'
    """
    data = ImageSet.__new__(ImageSet)
    held = {"_images": images, "_labels": labels, "_log_prior": log_prior}
    for key, array in held.items():
        view = None if array is None else np.asarray(array).view()
        if view is not None:
            view.flags.writeable = False
        vars(data)[key] = view
    vars(data).update({"_xflip": xflip, "_name": name, "_scaling": scaling})
    if fingerprint is not None:
        vars(data)["fingerprint"] = fingerprint
    return data


def _checked_scaling(scaling: object, images: Pixels) -> Scaling | None:
    if scaling is None:
        return None
    if not isinstance(scaling, Scaling):
        raise DTypeError(f"scaling is a {type(scaling).__name__}; allowed are a Scaling and None")
    if images.dtype == np.uint8:
        raise DTypeError("scaling is given, but the images are bytes; it is for latents, which are floats")
    scaling.check_channels(images.shape[1])
    return scaling


def require_images(data: object) -> ImageSet:
    """The data of a denoiser.

    Raises:
        DTypeError: they are no `ImageSet`.
    """
    if not isinstance(data, ImageSet):
        raise DTypeError(f"data is a {type(data).__name__}; allowed is an ImageSet, which pspc_rs.load makes")
    return data


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).data
