"""The explorer: a local page on which noisy images, denoisers and the training images behind them are looked at.

`pspc_rs.cli` makes it the command ``pspc-rs explore``. `Scene` has the numbers, `Views` show them as parts of a page,
`Work` runs what takes a while in threads, and `ExplorerServer` answers a browser on this machine.
"""

from pspc_rs.explorer.scene import Scene
from pspc_rs.explorer.server import ExplorerServer
from pspc_rs.explorer.views import Views
from pspc_rs.explorer.work import Work

__all__ = ["ExplorerServer", "Scene", "Views", "Work"]
