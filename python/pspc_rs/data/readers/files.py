"""Earlier names of what `pspc_rs.files` reads files with."""

from pspc_rs.files import as_path, decode_errors, open_file, require_path

__all__ = ["as_path", "damage_named", "decode_errors", "existing", "open_file", "require_path"]

damage_named = decode_errors
existing = require_path
