"""Writing files so that a reader never sees half of one."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pspc_rs.errors import OutputError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` to write to; renamed to it at the end, removed if anything goes wrong.

    Missing parent folders are made.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "deep", "a.txt")
        ...     with replacing(path) as temporary:
        ...         _ = temporary.write_text("done")
        ...     path.read_text()
        'done'
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        # Gone after the rename; and where it could never be made, it cannot be removed either.
        with contextlib.suppress(OSError):
            temporary.unlink()
