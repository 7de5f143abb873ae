"""Three small trained networks as denoisers D(z, sigma) of [-1, 1] images; weights come from PSPC_TEST_DATA.

Commands of the package take them by import path, `trained_networks:bp_mnist` for one, with this folder on the path.
"""

import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Module = Callable[..., Any]


def bp_mnist(z: Any, sigma: Any) -> Tensor:
    """A noise-predicting U-Net, discrete linear betas; good for sigma .01 to 2.5."""
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    return _from_noise(loaded(BpUNet, "bp_ddpm_mnist"), abar, torch.arange(1000), z, sigma)


def yz_mnist(z: Any, sigma: Any) -> Tensor:
    """A noise-predicting network without resolution changes, trained on [-.5, .5] pixels; good for sigma .03 to 3."""
    net = loaded(YzNet, "yz_ddpm_mnist_starter")
    return 2 * _from_noise(net, net.alpha_t[1:], torch.arange(1, 1001) / 1000, _tensor(z) / 2, _tensor(sigma) / 2)


def bfcnn_color(z: Any, sigma: Any) -> Tensor:
    """A blind residual denoiser of colour images of any size; trained for sigma up to .78."""
    y = (_tensor(z) + 1) / 2
    noise: Tensor = loaded(BfCnn, "bfcnn_bsd300_color")(y)
    return 2 * (y - noise) - 1


# Side of the images, then the channels before the first and after each of the three blocks.
_BP_STAGES = {
    "1": (28, 1, 10, 10, 10),
    "2": (14, 10, 20, 20, 20),
    "3": (7, 20, 40, 40, 40),
    "_mid": (3, 40, 20, 20, 40),
    "4": (7, 80, 40, 20, 20),
    "5": (14, 40, 20, 10, 10),
    "_out": (28, 20, 10, 10, 10),
}


class BpUNet(nn.Module):
    """Four resolutions, 28 to 3, three blocks each; every stage adds its time vector to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Embedding(1000, 100)
        for name, (size, *widths) in _BP_STAGES.items():
            blocks = [BpBlock(c, size, out) for c, out in pairwise(widths)]
            blocks[-1].normed = name != "_out"
            self.add_module(f"b{name}", nn.Sequential(*blocks))
            self.add_module(f"te{name}", _time_mlp(widths[0]))
        self.down1, self.down2 = (nn.Conv2d(c, c, 4, 2, 1) for c in (10, 20))
        self.down3 = nn.Sequential(nn.Conv2d(40, 40, 2), nn.SiLU(), nn.Conv2d(40, 40, 4, 2, 1))
        self.up1 = nn.Sequential(nn.ConvTranspose2d(40, 40, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(40, 40, 2))
        self.up2, self.up3 = (nn.ConvTranspose2d(c, c, 4, 2, 1) for c in (20, 10))
        self.conv_out = nn.Conv2d(10, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise of x at the steps t, int64 [batch]."""
        row = self.time_embed(t)
        first = self._stage("1", x, row)
        second = self._stage("2", self.down1(first), row)
        third = self._stage("3", self.down2(second), row)
        x = self.up1(self._stage("_mid", self.down3(third), row))
        x = self.up2(self._stage("4", torch.cat((third, x), 1), row))
        x = self.up3(self._stage("5", torch.cat((second, x), 1), row))
        noise: Tensor = self.conv_out(self._stage("_out", torch.cat((first, x), 1), row))
        return noise

    def _stage(self, name: str, x: Tensor, row: Tensor) -> Tensor:
        blocks, time = getattr(self, f"b{name}"), getattr(self, f"te{name}")
        out: Tensor = blocks(x + time(row)[:, :, None, None])
        return out


class BpBlock(nn.Module):
    """LayerNorm over the whole image, then twice convolution and SiLU."""

    def __init__(self, channels: int, size: int, out: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm((channels, size, size))
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.normed = True

    def forward(self, x: Tensor) -> Tensor:
        """The features of x."""
        return F.silu(self.conv2(F.silu(self.conv1(self.ln(x) if self.normed else x))))


class YzNet(nn.Module):
    """Four wide convolutions and a narrow one, with a time vector after the first."""

    alpha_t: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        pairs = ((1, 16), (16, 32), (32, 32), (32, 16))
        self.blocks = nn.ModuleList([*(YzBlock(c, out) for c, out in pairs), nn.Conv2d(16, 1, 3, padding=1)])
        layers = [nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU()]
        self.time_embed = nn.Sequential(*layers, nn.Linear(128, 16))
        for name, length in (("alpha_t", 1001), ("beta_t", 1001), ("frequencies", 16)):
            self.register_buffer(name, torch.zeros(length))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise of x at the times t, [batch] in 0 .. 1."""
        angles = t[:, None] * self.frequencies
        time = self.time_embed(torch.cat((angles.sin(), angles.cos() - 1), 1))
        x = self.blocks[0](x) + time[:, :, None, None]
        for block in self.blocks[1:]:
            x = block(x)
        return x


class YzBlock(nn.Module):
    """Convolution 7 x 7, LayerNorm over the whole image, GELU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, out, 7, padding=3), nn.LayerNorm((out, 28, 28)), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """The features of x."""
        out: Tensor = self.net(x)
        return out


class BfCnn(nn.Module):
    """Twenty convolutions without any bias; its output is the noise."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *[64] * 19, 3]
        self.conv_layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.running_sd, self.gammas = (
            nn.ParameterList(nn.Parameter(torch.ones(1, 64, 1, 1)) for _ in range(18)) for _ in range(2)
        )

    def forward(self, y: Tensor) -> Tensor:
        """The noise in y, which has pixels in [0, 1]."""
        y = F.relu(self.conv_layers[0](y))
        for conv, sd, gamma in zip(self.conv_layers[1:19], self.running_sd, self.gammas, strict=True):
            y = F.relu(conv(y) / sd * gamma)
        noise: Tensor = self.conv_layers[19](y)
        return noise


def weights_folder() -> Path:
    """Where the weights are.

    Raises:
        FileNotFoundError: PSPC_TEST_DATA is not set.
    """
    folder = os.environ.get("PSPC_TEST_DATA")
    if not folder:
        raise FileNotFoundError("PSPC_TEST_DATA names no folder with the trained networks")
    return Path(folder, "networks")


@cache
def loaded(kind: Callable[[], Module], name: str) -> Any:
    """The bare network of that class with its trained weights."""
    net: Any = kind()
    net.load_state_dict(load_file(weights_folder() / f"{name}.safetensors"))
    return net.eval().requires_grad_(False)


def _from_noise(net: Module, abar: Tensor, times: Tensor, z: Any, sigma: Any) -> Tensor:
    """D = z - sigma eps(sqrt(abar_t) z, t), t the step whose noise level is nearest to sigma on a log scale."""
    z, sigma = _tensor(z), _tensor(sigma).expand(len(z))
    levels = ((1 - abar.double()) / abar.double()).sqrt().log()
    step = (sigma.double().log()[:, None] - levels).abs().argmin(1)
    noise = net(abar[step].sqrt()[:, None, None, None] * z, times[step])
    denoised: Tensor = z - sigma[:, None, None, None] * noise
    return denoised


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def _time_mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(100, channels), nn.SiLU(), nn.Linear(channels, channels))
