"""`pspc-rs train`: train a denoising network, which can be resumed."""

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from pspc_rs.arrays import import_torch
from pspc_rs.cli.commands import Command, ignored_options, option_group
from pspc_rs.cli.front import Interrupted
from pspc_rs.cli.models import load_data
from pspc_rs.cli.options import output_folder, with_data
from pspc_rs.progress import ProgressBar
from pspc_rs.training import PRESETS, RunOptions, TrainSettings, preset

_network, _training = option_group("Network"), option_group("Training")
_computing, _reports = option_group("Computing"), option_group("Reports")

_COUNT = click.IntRange(min=1)
_COUNT_OR_0 = click.IntRange(min=0)
_POSITIVE = click.FloatRange(min=0, min_open=True)
_SHARE = click.FloatRange(min=0, max=1, max_open=True)

_ARCHITECTURES = ("SongUNet", "DhariwalUNet", "DiT", "UViT")
# Which argument of each architecture an option sets.
_ARCHITECTURE_OPTIONS = {
    "channels": {
        "SongUNet": "model_channels",
        "DhariwalUNet": "model_channels",
        "DiT": "hidden_size",
        "UViT": "hidden_size",
    },
    "blocks": {"SongUNet": "num_blocks", "DhariwalUNet": "num_blocks", "DiT": "depth", "UViT": "depth"},
    "channel_mult": {"SongUNet": "channel_mult", "DhariwalUNet": "channel_mult"},
    "attn_resolutions": {"SongUNet": "attn_resolutions", "DhariwalUNet": "attn_resolutions"},
    "patch": {"DiT": "patch_size", "UViT": "patch_size"},
    "heads": {"DiT": "num_heads", "UViT": "num_heads"},
    "dropout": dict.fromkeys(_ARCHITECTURES, "dropout"),
    "label_dropout": dict.fromkeys(_ARCHITECTURES, "label_dropout"),
}
# Which field of the settings an option sets.
_SETTINGS_OPTIONS = {
    "process": "process",
    "images": "images",
    "batch": "batch",
    "lr": "learning_rate",
    "weight_decay": "weight_decay",
    "lr_ramp": "learning_rate_ramp",
    "ema": "ema_half_life",
    "augment": "augment",
    "cond": "conditional",
    "seed": "seed",
}
_RUN_OPTIONS = (
    "device",
    "micro_batch",
    "tf32",
    "log_every",
    "checkpoint_every",
    "sample_every",
    "num_samples",
    "evaluate_images",
)


def _integers(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(word) for word in value.split(",") if word]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no comma list of integers, such as 1,2,2") from error


@click.command(cls=Command, ranks=True)
@click.option(
    "--arch", type=click.Choice(list(PRESETS)), metavar="NAME", required=True, help="Which preset; see above."
)
@output_folder("Folder of the run; made if it is not there.")
@ignored_options("--resume", reason="a run is always continued; leave it out")
@with_data
@_training("--images", type=_COUNT, help="Length of the run: images seen, however often each.  [default: preset]")
@_training("--steps", type=_COUNT, help="Length of the run in steps, instead of --images.")
@_training("--batch", type=_COUNT, help="Images per step, over all ranks.  [default: preset]")
@_computing("--micro-batch", type=_COUNT, help="Most images at once on a device.  [default: all of its share]")
@_training("--lr", type=_POSITIVE, help="Learning rate of Adam.  [default: preset]")
@_training("--lr-ramp", type=_COUNT_OR_0, help="Images over which it grows from 0.  [default: 5 %, at most 10 M]")
@_training("--weight-decay", type=click.FloatRange(min=0), help="AdamW's weight decay.  [default: preset]")
@_training("--ema", type=_COUNT_OR_0, help="Half-life of the averaged weights in images.  [default: preset]")
@_training("--augment", type=click.FloatRange(0, 1), help="Probability of augmentations.  [default: preset]")
@_network("--dropout", type=_SHARE, help="Dropout.  [default: preset]")
@_training("--process", type=click.Choice(["edm", "vp", "ve"]), help="Preconditioner and loss.  [default: preset]")
@_network("--cond/--uncond", default=None, help="Give the network the images' classes.  [default: preset]")
@_network("--label-dropout", type=_SHARE, help="Share of classes that are dropped.  [default: 0]")
@option_group("Data")("--max-size", type=_COUNT, help="At most so many images of the data.")
@_network(
    "--channels", type=_COUNT, help="Width: channels of a U-Net, hidden size of a transformer.  [default: preset]"
)
@_network("--blocks", type=_COUNT, help="Blocks per level of a U-Net, depth of a transformer.  [default: preset]")
@_network("--channel-mult", callback=_integers, metavar="LIST", help="U-Net: width of each level.")
@_network("--attn-resolutions", callback=_integers, metavar="LIST", help="U-Net: sides with attention.")
@_network("--patch", type=_COUNT, help="Transformer: side of a patch.  [default: preset]")
@_network("--heads", type=_COUNT, help="Transformer: attention heads.  [default: preset]")
@_computing("--bf16", is_flag=True, help="Run the network in bfloat16; weights and loss stay in float32.")
@_computing("--compile", "compiled", is_flag=True, help="Pass the network through torch.compile.")
@_computing("--tf32", is_flag=True, help="Allow CUDA to round factors to 10 bits.")
@_computing(
    "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="Where to compute; auto is a GPU if there is one."
)
@_training("--seed", type=_COUNT_OR_0, default=0, help="Seed of weights, order, noise and dropout.")
@_reports("--log-every", type=_COUNT, help="Images between lines of the log.  [default: run / 1000]")
@_reports("--sample-every", type=_COUNT, help="Images between pictures of samples.  [default: run / 20]")
@_reports("--checkpoint-every", type=_COUNT, help="Images between checkpoints.  [default: run / 100]")
@_reports("--num-samples", type=_COUNT_OR_0, default=64, help="Samples in a picture, 0 for none.")
@_reports("--evaluate-images", type=_COUNT_OR_0, default=256, help="Images of an evaluation, 0 for none.")
@_reports("--fp16-network", is_flag=True, help="Save the finished network in half precision.")
def train(arch: str, data: str, outdir: Path, **options: Any) -> None:
    """Train a denoising network.

    Presets: dit-b4 is the DiT-B/4 of the PSPC paper, and dit-{s,b,l,xl}{2,4,8} its other sizes; ddpmpp and ncsnpp are
    EDM's for CIFAR-10, with -ffhq and -afhq for 64 x 64 images; adm is EDM's for ImageNet-64; uvit-s2 is U-ViT's for
    CIFAR-10. Other options change what a preset says.

    Writes network.safetensors (the averaged weights), log.jsonl (loss by noise level), evaluation.jsonl, samples/ and
    checkpoints/. After Ctrl-C the same command continues, with the same losses as if nothing had happened. A folder
    with another run is never overwritten.
    Several GPUs: torchrun --nproc-per-node 8 --no-python pspc-rs train ...
    """
    import_torch("training")
    from pspc_rs.training.ranks import is_first_rank
    from pspc_rs.training.trainer import train as run

    settings = _settings(arch, options)
    run_options = RunOptions(
        compile=options["compiled"],
        half_precision=options["fp16_network"],
        **{name: options[name] for name in _RUN_OPTIONS},
    )
    images = load_data(data, xflip=options["xflip"], max_size=options["max_size"])
    shown = is_first_rank()
    try:
        with _RunBar(arch) as bar:
            path = run(images, outdir, settings, run_options, progress=bar if shown else None)
    except KeyboardInterrupt as stop:
        raise Interrupted(stop, "a checkpoint is kept, run the same command to continue") from stop
    if shown:
        click.echo(path)


def _settings(arch: str, options: dict[str, Any]) -> TrainSettings:
    """The preset with what the options change."""
    base = preset(arch)
    kwargs = dict(base.architecture_kwargs)
    for option, names in _ARCHITECTURE_OPTIONS.items():
        if options[option] is None:
            continue
        if base.architecture not in names:
            raise click.UsageError(f"--{option.replace('_', '-')} is not for --arch {arch}")
        kwargs[names[base.architecture]] = options[option]
    changed = {field: options[option] for option, field in _SETTINGS_OPTIONS.items() if options[option] is not None}
    if options["steps"] is not None:
        if options["images"] is not None:
            raise click.UsageError("--steps and --images both say how long to train; give one of them")
        changed["images"] = options["steps"] * changed.get("batch", base.batch)
    if options["bf16"]:
        changed["precision"] = "bf16"
    return replace(base, architecture_kwargs=kwargs, **changed)


class _RunBar:
    """Images seen, images per second, the time left and the loss, in a bar that begins where the run does."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: ProgressBar | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = ProgressBar("img", self._what, total=total, done=done)
        self._bar(done, total)

    def describe(self, what: str) -> None:
        self._what = what
        if self._bar is not None:
            self._bar.describe(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
