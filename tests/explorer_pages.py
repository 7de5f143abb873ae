"""An explorer for tests: small data, denoisers of every kind, and a server in a thread of its own."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import numpy as np

import pspc_rs as pspc
from pspc_rs.explorer import ExplorerServer, Scene, Views
from pspc_rs.explorer.scene import Model

SIGMAS = [4.0, 1.0, 0.3, 0.1]
LABELS = np.arange(30) % 3


def some_data() -> pspc.ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    return pspc.ImageSet(images, labels=LABELS, xflip=True, name="<b>data</b>")


def halve(z: Any, sigma: Any) -> Any:
    return z / 2


def some_denoisers(data: pspc.ImageSet) -> dict[str, Model]:
    return {
        "pspc_sq": pspc.PSPCSquare(data, patch_sizes=3),
        "empirical": pspc.Empirical(data),
        "gaussian": pspc.Gaussian(data, shrinkage=0.1, cache=False),
        "net": pspc.Network(halve, sigma_max=80),
    }


@contextmanager
def serving(scene: Scene) -> Iterator[ExplorerServer]:
    """A server that answers until the end of the context."""
    unexpected: list[str] = []
    with ExplorerServer(Views(scene), 0, unexpected.append) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
    assert unexpected == []


def get(
    server: ExplorerServer,
    view: str,
    asked: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """The status and the text of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request("GET", f"/{view}?{urlencode(asked)}" if asked else f"/{view}", headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answer(server: ExplorerServer, view: str, **asked: object) -> Any:
    """The answer of a view, once it is there."""
    status, text = get(server, view, asked)
    while status == 202:
        status, text = get(server, view, asked)
    assert status == 200, text
    return json.loads(text)


def refusal(server: ExplorerServer, status: int, view: str, **asked: object) -> str:
    """Why a view refuses to answer."""
    found, text = get(server, view, asked)
    assert found == status, text
    return str(json.loads(text)["error"])
