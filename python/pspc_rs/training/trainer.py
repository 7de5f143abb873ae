"""The loop of training: steps, and what happens between them."""

import contextlib
import copy
import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, OutputError
from pspc_rs.images import image_grid, save_png
from pspc_rs.locks import OutputLock
from pspc_rs.networks.registry import build_network
from pspc_rs.networks.saved import save_network
from pspc_rs.outputs import differences
from pspc_rs.progress import Progress, describe
from pspc_rs.provenance import Clock, describe_data, plain, provenance, save_record, versions
from pspc_rs.training.augment import AugmentPipe
from pspc_rs.training.batches import Batch, Batches, Prefetcher, dropout_seed
from pspc_rs.training.checkpoint import (
    Interruptions,
    TrainState,
    checkpoints,
    load_checkpoint,
    read_record,
    remove_unfinished,
    save_checkpoint,
)
from pspc_rs.training.evaluation import SIGMAS, LineLog, LossSums, draw_samples, loss_per_sigma
from pspc_rs.training.losses import LOSSES, squared_error
from pspc_rs.training.optimise import (
    allow_tf32,
    clean_gradients,
    compile_network,
    ema_beta,
    keep_generators,
    learning_rate,
    update_average,
)
from pspc_rs.training.ranks import Rank, connect_rank
from pspc_rs.training.settings import RunOptions, TrainSettings

NETWORK = "network.safetensors"
"""Name of the finished network's file."""


def train(
    data: ImageSet,
    outdir: str | Path,
    settings: TrainSettings,
    options: RunOptions | None = None,
    *,
    resume: bool | None = None,
    progress: Progress | Callable[[int, int, float | None], object] | None = None,
) -> Path:
    """Trains a denoiser, and returns the file of its averaged weights.

    The folder holds at the end: ``network.safetensors``, for ``read_network``; ``log.jsonl``, the loss by noise level;
    ``evaluation.jsonl``, the squared error of the averaged network at given noise levels; ``samples/``, pictures of its
    samples; ``checkpoints/``, the last two; ``settings.json``. Under ``torchrun`` every rank calls this with the same
    arguments.

    Args:
        data: the images.
        outdir: the folder; made if it is not there.
        settings: what is trained, and how.
        options: how the work is done; the defaults of `RunOptions` if None.
        resume: deprecated; a run in the folder is always continued, and False refuses one. Its losses are those of a
            run that was never stopped; on a CPU, to the last bit. ``images`` may be larger than before.
        progress: called as ``progress(images, all_images)`` before the first and after every step; its ``describe``,
            if it has one, gets the loss. A function of three arguments, the third of which is the loss, is deprecated.

    Raises:
        OutputError: the folder holds a run with other settings, or one that is going on; or it cannot be written.
        InvalidValueError: a setting does not fit the data, or training diverged.
        DataError: a checkpoint is damaged; or labels are missing.
        MissingDependencyError: safetensors is not installed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written, from which the run can be resumed.

    Example:
        >>> import tempfile
        >>> from pspc_rs.testing import tiny_images
        >>> kwargs = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
        >>> settings = TrainSettings("SongUNet", kwargs, learning_rate=1e-3, batch=2, augment=0.0, images=2)
        >>> options = RunOptions(device="cpu", num_samples=0, evaluate_images=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(tiny_images(), folder, settings, options).name
        'network.safetensors'
    """
    options = options or RunOptions()
    if _takes_loss(progress):
        warnings.warn(
            "progress(images, all_images, loss) is deprecated; write progress(images, all_images), and a method "
            "describe(text) to get the loss",
            DeprecationWarning,
            stacklevel=2,
        )
    if resume is not None:
        warnings.warn(
            "resume= is deprecated: a run in the folder is always continued; leave it out",
            DeprecationWarning,
            stacklevel=2,
        )
    with (
        connect_rank(options.device) as rank,
        _run_lock(Path(outdir), rank),
        keep_generators(rank.device),
        allow_tf32(options.tf32),
    ):
        trainer = Trainer(data, Path(outdir), settings, options, rank)
        trainer.begin(resume is not False)
        return trainer.run(progress)


@contextlib.contextmanager
def _run_lock(outdir: Path, rank: Rank) -> Iterator[None]:
    """The right to write a folder: the first rank takes it, and the others learn whether it could."""
    lock, problem = OutputLock(outdir / ".lock", outdir), None
    if rank.first:
        try:
            lock.acquire()
        except OutputError as error:
            problem = error
    # Every rank must get here, or the others would wait.
    refused = rank.sum(torch.tensor(float(problem is not None), device=rank.device))
    if refused:
        raise problem or OutputError(f"{outdir} cannot be written by the first rank, which says why")
    try:
        yield
    finally:
        lock.release()


class Trainer:
    """One run of training in one rank; ``train`` says what the arguments mean.

    Attributes:
        state: what changes in it.
    """

    def __init__(self, data: ImageSet, outdir: Path, settings: TrainSettings, options: RunOptions, rank: Rank) -> None:
        self._data, self._outdir, self._settings, self._options, self._rank = data, outdir, settings, options, rank
        self._clock = Clock()
        self._interruptions = Interruptions()
        self._augment = AugmentPipe(settings.augment) if settings.augment else None
        self._loss = LOSSES[settings.process]
        self._label_dim = settings.label_dim(data)
        description = settings.description(data, self._augment.label_dim if self._augment else 0)
        torch.manual_seed(settings.seed % 2**63)
        network = build_network(description).to(rank.device).train()
        average = copy.deepcopy(network).eval().requires_grad_(False)
        self.state = TrainState(network, average, _adam(network, settings), LossSums(rank.device))
        self._model = rank.distribute(compile_network(network, options.compile))
        self._average: Any = average
        self._last_loss: float | None = None

    def __repr__(self) -> str:
        return f"Trainer({str(self._outdir)!r}, {self.state.images} of {self._settings.images} images)"

    def begin(self, resume: bool) -> None:
        """Restores the run in the folder, or begins one.

        Args:
            resume: False refuses a folder that holds a run.

        Raises:
            OutputError: the folder holds a run that is not to be resumed, or one with other settings.
            DataError: its checkpoint is damaged.
        """
        earlier = checkpoints(self._outdir / "checkpoints")
        if (earlier or (self._outdir / NETWORK).exists()) and not resume:
            raise OutputError(f"{self._outdir} holds a run already; resume it, or choose another folder")
        if earlier:
            settings = TrainSettings.with_defaults(read_record(earlier[-1])["settings"])
            if self._settings.learning_rate_ramp is None:
                self._settings = replace(self._settings, learning_rate_ramp=settings["learning_rate_ramp"])
            changes = differences(_without_length(settings), _without_length(self._record()))
            if changes:
                raise OutputError(f"{self._outdir} cannot be resumed, it has other settings: {changes}")
            load_checkpoint(earlier[-1], self.state)
        if self._rank.first:
            remove_unfinished(self._outdir / "checkpoints")
            save_record(self._outdir / "settings.json", self._record())
            self._log = LineLog(self._outdir / "log.jsonl", self.state.images)
            self._last_loss = next((line["loss"] for line in reversed(self._log.read())), None)
            self._evaluations = LineLog(self._outdir / "evaluation.jsonl", self.state.images)

    def run(self, progress: Any = None) -> Path:
        """Takes all steps that are left, and saves the averaged network; ``train`` says what progress is."""
        takes_loss = _takes_loss(progress)
        batches = Batches(
            self._data,
            self._settings.seed,
            normal=self._loss.draw == "normal",
            label_dim=self._label_dim,
            augment=self._augment,
        )
        with (
            self._interruptions.handled(),
            Prefetcher(batches.batch) as self._prefetcher,
            self._checkpoint_if_stopped(),
        ):
            if self.state.images:
                self._evaluate()
            self._report(progress, takes_loss)
            self._began = self.state.images < self._settings.images
            self._interval = (time.perf_counter(), self.state.images)
            while self.state.images < self._settings.images:
                self._step()
                self._between_steps()
                self._report(progress, takes_loss)
            return self._finish()

    def _report(self, progress: Any, takes_loss: bool) -> None:
        total = self._settings.images
        images = min(self.state.images, total)
        if takes_loss:
            progress(images, total, self._last_loss)
        elif progress is not None:
            if self._last_loss is not None:
                describe(progress, f"{self._settings.architecture}, loss {self._last_loss:.4f}")
            progress(images, total)

    def _step(self) -> None:
        """One step of the optimiser, on parts of the batch whose gradients add up, and its line of the log if due."""
        began = time.perf_counter()
        sums: Tensor | float = 0.0
        parts = self._parts(self.state.images)
        for index, (first, count) in enumerate(parts):
            # The last part is followed by the first part of the next step.
            following = parts[index + 1 : index + 2] or self._parts(self.state.images + self._settings.batch)[:1]
            batch = self._prefetcher.get((first, count), following[0])
            with self._exchange_gradients(index == len(parts) - 1):
                sums = sums + self._accumulate(batch, first)
        assert isinstance(sums, Tensor)
        sums = self._rank.sum(sums)
        # A checkpoint between the step and its line would have the losses of the line, but not the line.
        with self._interruptions.deferred():
            self._update(sums)
            self.state.seconds += time.perf_counter() - began
            if self._due(self._options.log_every, 1000):
                self._write_log()

    def _parts(self, seen: int) -> list[tuple[int, int]]:
        """First image and number of images of every part of this rank's share of the step after ``seen`` images."""
        share = self._rank.share(self._settings.batch)
        size = self._options.micro_batch or len(share)
        return [(seen + start, min(size, share.stop - start)) for start in range(share.start, share.stop, size)]

    def _accumulate(self, batch: Batch, first: int) -> Tensor:
        """Adds the gradients of a part of a batch, and returns its losses by noise level."""
        device = self._rank.device
        torch.manual_seed(dropout_seed(self._settings.seed, first))
        sigma = self._loss.sigma(batch.number)
        weight = self._loss.weight(sigma).float().to(device)
        images, augment_labels = batch.images.to(device), None
        if self._augment is not None and batch.augmentation is not None:
            images = self._augment.apply(images, batch.augmentation)
            augment_labels = batch.augmentation.labels.to(device)
        class_labels = None if batch.class_labels is None else batch.class_labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.precision == "bf16"):
            noise, level = batch.noise.to(device), sigma.float().to(device)
            error = squared_error(
                self._model, images, noise, level, class_labels=class_labels, augment_labels=augment_labels
            )
        # Gradients are averaged over the ranks, so each rank's loss counts as many times as there are ranks.
        share = self._settings.loss_scale * self._rank.count / self._settings.batch
        (share * (weight[:, None, None, None] * error).sum()).backward()  # type: ignore[no-untyped-call]
        mse = error.detach().mean((1, 2, 3))
        return self.state.sums.of(sigma, mse, weight * mse)

    def _update(self, sums: Tensor) -> None:
        s, seen = self._settings, self.state.images
        replaced = clean_gradients(self.state.network.parameters())
        for group in self.state.optimizer.param_groups:
            group["lr"] = learning_rate(s.learning_rate, seen, s.ramp)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        update_average(self.state.average, self.state.network, ema_beta(seen, s.batch, s.ema_half_life, s.ema_ramp))
        self.state.sums.add(sums, replaced)
        self.state.images += s.batch

    def _between_steps(self) -> None:
        """Evaluation and checkpoint, where due; the checkpoint last, so that a resumed run repeats no evaluation."""
        self._evaluate()
        if self._due(self._options.checkpoint_every, 100):
            self._save_checkpoint()

    def _due(self, every: int | None, parts: int) -> bool:
        """Whether the last step ended the run or came to a multiple of ``every`` images."""
        every = every or max(1, self._settings.images // parts)
        seen = self.state.images
        return seen >= self._settings.images or seen // every > (seen - self._settings.batch) // every

    def _write_log(self) -> None:
        loss = self.state.sums.loss()
        lost, replaced = self.state.sums.nonfinite.tolist()
        if loss is None:
            raise InvalidValueError(
                f"training diverged: after {self.state.images} images every loss is NaN or infinite; resume from the "
                "last checkpoint with a lower learning rate or in fp32"
            )
        self._last_loss = loss
        now, seen = time.perf_counter(), self.state.images
        rate = (seen - self._interval[1]) / max(now - self._interval[0], 1e-9)
        entry = {
            "images": seen,
            "steps": seen // self._settings.batch,
            "loss": loss,
            "learning_rate": self.state.optimizer.param_groups[0]["lr"],
            "images_per_second": round(rate, 1),
            "seconds": round(self.state.seconds, 1),
            "nonfinite_losses": int(lost),
            "replaced_gradients": int(replaced),
            "per_sigma": list(self.state.sums.rows()),
        }
        if self._rank.first:
            self._log.write(entry)
        self.state.sums.reset()
        self._interval = (now, seen)

    def _samples_file(self) -> Path:
        return self._outdir / "samples" / f"{self.state.images:012d}.png"

    def _evaluate(self) -> None:
        """A picture of samples, and the squared error of the averaged network, where due and not there yet."""
        if not self._rank.first or not self._due(self._options.sample_every, 20):
            return
        num = self._options.evaluate_images
        if num and all(line["images"] != self.state.images for line in self._evaluations.read()):
            mse = loss_per_sigma(self._average, self._data, num=num, label_dim=self._label_dim)
            entry = {"images": self.state.images, "evaluated": num, "sigmas": SIGMAS, "mse": mse.tolist()}
            self._evaluations.write(entry)
        num = self._options.num_samples
        if num and self._data.channels in (1, 3, 4) and not self._samples_file().exists():
            x = draw_samples(self._average, num, num_steps=self._options.sample_steps)
            save_png(self._samples_file(), image_grid(x))

    def _save_checkpoint(self) -> None:
        if self._rank.first:
            save_checkpoint(self._outdir / "checkpoints", self.state, {"settings": self._record()})

    def _finish(self) -> Path:
        path = self._outdir / NETWORK
        if self._rank.first and (self._began or not path.exists()):
            record = provenance("train", {}, data=self._data, clock=self._clock, settings=self._record())
            record |= {"images": self.state.images, "seconds": round(self.state.seconds, 1), "loss": self._last_loss}
            dtype = "float16" if self._options.half_precision else "float32"
            save_network(self.state.average, path, metadata=record, dtype=dtype)
        return path

    def _record(self) -> dict[str, Any]:
        """Everything that decides the numbers."""
        settings: dict[str, Any] = plain(self._settings.as_dict())
        return {**settings, "data": describe_data(self._data), "versions": versions()}

    @contextlib.contextmanager
    def _checkpoint_if_stopped(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            with self._interruptions.deferred():
                if self.state.images:
                    self._save_checkpoint()
            raise

    def _exchange_gradients(self, now: bool) -> contextlib.AbstractContextManager[object]:
        """A context in which ``backward`` exchanges gradients with the other ranks, or waits for a later part."""
        if now or not isinstance(self._model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return cast(contextlib.AbstractContextManager[object], self._model.no_sync())


def _adam(network: nn.Module, settings: TrainSettings) -> torch.optim.Adam | torch.optim.AdamW:
    """The optimiser; the learning rate is set before every step."""
    parameters, betas, eps = network.parameters(), settings.betas, settings.eps
    if settings.weight_decay:
        return torch.optim.AdamW(parameters, lr=0.0, betas=betas, eps=eps, weight_decay=settings.weight_decay)
    return torch.optim.Adam(parameters, lr=0.0, betas=betas, eps=eps)


def _without_length(settings: dict[str, Any]) -> dict[str, Any]:
    """What must be the same to go on: all but the length of the run and the versions."""
    return {name: value for name, value in settings.items() if name not in ("images", "versions")}


def _takes_loss(progress: Callable[..., object] | None) -> bool:
    """Whether it must be called as ``progress(images, all_images, loss)``."""
    if progress is None:
        return False
    try:
        signature = inspect.signature(progress)
    except ValueError:  # built-in functions may have no signature
        return False
    try:
        signature.bind(0, 0)
    except TypeError:
        return True
    return False
