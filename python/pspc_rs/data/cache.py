"""Where downloaded data sets are kept."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for downloaded data sets: PSPC_CACHE_DIR, or else the user's cache folder of this platform.

    The folder need not exist yet.

    Example:
        >>> import os
        >>> os.environ["PSPC_CACHE_DIR"] = "somewhere"
        >>> cache_dir().name
        'somewhere'
        >>> del os.environ["PSPC_CACHE_DIR"]
    """
    chosen = os.environ.get("PSPC_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("pspc-rs"))
