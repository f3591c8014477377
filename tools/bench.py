"""How fast the library is, beside what others use for the same, in the same run: ``python -m tools.bench [book]``.

Images per second of ``fit_gan`` beside the plain tutorial loop, with the same networks, on the machine as it is and
with a busy process more, and the share of its own matrix-product peak that either reaches; seconds of the metrics
beside other libraries' on the same features. With ``book``: the minutes that the whole book takes when one, two and as
many chapters as the machine bears are executed at once.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmgan_lib import runtime
from mmgan_lib.datasets import Loader
from mmgan_lib.gan import Discriminator, Generator
from mmgan_lib.metrics import density_coverage, frechet_distance, kernel_distance, precision_recall
from mmgan_lib.training import GANConfig, fit_gan
from tools import execution

ROOT = Path(__file__).parent.parent
BATCH = 64
STEPS = runtime.by_tier(quick=40, full=1000)
ROUNDS = 3
Networks = tuple[nn.Module, nn.Module]


def networks(device: torch.device) -> Networks:
    """A DCGAN of the chapter's kind, 32×32 RGB."""
    runtime.seed_everything(0)
    discriminator = Discriminator(channels=3, width=32, norm=nn.BatchNorm2d).to(device)
    return Generator(channels=3, width=32).to(device), discriminator


def tutorial_loop(generator: nn.Module, discriminator: nn.Module, loader: Loader, steps: int) -> None:
    """What most tutorials write: nothing frozen, the losses read at every step."""
    device = loader.device
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    losses = []
    for step in range(steps):
        real = loader.batch(step)
        fake = generator(torch.randn(len(real), generator.latent_dim, device=device))
        d_optimizer.zero_grad()
        d_loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        d_loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        g_loss = F.softplus(-discriminator(fake)).mean()
        g_loss.backward()
        g_optimizer.step()
        losses.append((d_loss.item(), g_loss.item()))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of some work, all of it done."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak(device: torch.device) -> float:
    """Floating-point operations per second of a large matrix product, in the precision that training uses."""
    side = runtime.by_tier(quick=2048, full=8192)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    seconds(lambda: a @ a, device)
    return 2 * side**3 / min(seconds(lambda: a @ a, device) for _ in range(10))


def flops(device: torch.device, loader: Loader) -> int:
    """Operations of one step of the plain loop, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        tutorial_loop(*networks(device), loader, steps=1)
    return counter.get_total_flops()


class Given(nn.Module):
    """What torchmetrics takes for an extractor: the features are what it is given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x


def by_torchmetrics(metric: str, real: Tensor, fake: Tensor) -> None:
    """With its defaults, but double precision for the Fréchet distance, as its documentation advises."""
    from torchmetrics import image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it keeps features in memory
        computed = getattr(image, metric)(feature=Given(real.shape[1]))
    if metric == "FrechetInceptionDistance":
        computed.set_dtype(torch.float64)
    computed.update(real, real=True)
    computed.update(fake, real=False)
    computed.compute()


def fid_by_torch_fidelity(real: Tensor, fake: Tensor) -> None:
    """Without the time that its network takes."""
    from torch_fidelity import metric_fid

    statistics = [metric_fid.fid_features_to_statistics(x) for x in (real, fake)]
    metric_fid.fid_statistics_to_metric(*statistics, verbose=False)


def kid_by_torch_fidelity(real: Tensor, fake: Tensor) -> None:
    """With its defaults."""
    from torch_fidelity import defaults, metric_kid

    metric_kid.kid_features_to_metric(real, fake, **defaults.DEFAULTS | {"verbose": False})


def prc_by_torch_fidelity(real: Tensor, fake: Tensor) -> None:
    """With its defaults."""
    from torch_fidelity import defaults, metric_prc

    metric_prc.prc_features_to_metric(fake, real, **defaults.DEFAULTS | {"verbose": False})


def all_four_by_prdc(real: Tensor, fake: Tensor) -> None:
    """It has no other way."""
    from prdc import compute_prdc

    with redirect_stdout(io.StringIO()):
        compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)


def all_four(*, real: Tensor, fake: Tensor, resamples: int) -> None:
    """What prdc computes, by the library."""
    precision_recall(real=real, fake=fake, neighbours=5, resamples=resamples)
    density_coverage(real=real, fake=fake, neighbours=5, resamples=resamples)


FRECHET = {
    "torchmetrics": partial(by_torchmetrics, "FrechetInceptionDistance"),
    "torch-fidelity": fid_by_torch_fidelity,
}
KERNEL = {
    "torchmetrics": partial(by_torchmetrics, "KernelInceptionDistance"),
    "torch-fidelity": kid_by_torch_fidelity,
}
PRECISION = {"torch-fidelity": prc_by_torch_fidelity}
METRICS: list[tuple[str, int, Callable[..., object], dict[str, Callable[[Tensor, Tensor], object]]]] = [
    ("Fréchet distance", 512, frechet_distance, FRECHET),
    ("Fréchet distance", 2048, frechet_distance, FRECHET),
    ("kernel distance", 512, kernel_distance, KERNEL),
    ("precision and recall", 512, precision_recall, PRECISION),
    ("… and density and coverage", 512, all_four, {"prdc": all_four_by_prdc}),
]


def metrics() -> None:
    """Seconds of our metrics, and of the same values by other libraries, which give no interval."""
    columns = ["ours", "torchmetrics", "torch-fidelity", "prdc", "ours, with its interval"]
    print(f"\n{'seconds for 5,000 × D features':<34}", *(f"{column:>{len(column) + 2}}" for column in columns), sep="")
    for name, dim, ours, others in METRICS:
        real, fake = torch.randn(2, 5000, dim)
        ways = {column: partial(way, real, fake) for column, way in others.items()}
        ways["ours"] = partial(ours, real=real, fake=fake, resamples=0)
        ways["ours, with its interval"] = partial(ours, real=real, fake=fake, resamples=1000)
        times = {column: [] for column in ways}
        for _ in range(1 if dim > 1000 else 3):
            for column, way in ways.items():
                times[column].append(seconds(way, real.device))
        cells = [f"{median(times[column]):.2f}" if column in times else "" for column in columns]
        padded = (f"{cell:>{len(column) + 2}}" for cell, column in zip(cells, columns, strict=True))
        print(f"{name + f', D = {dim:,}':<34}", *padded, sep="", flush=True)


@contextmanager
def busy() -> Iterator[None]:
    """Beside a process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def training() -> None:
    """Images per second of either loop: they take turns, so that none has the quieter machine."""
    device = runtime.device()
    pictures: Tensor = torch.rand(4096, 3, 32, 32) * 2 - 1
    loader = Loader(pictures, BATCH, device=device)

    def plain(g: nn.Module, d: nn.Module, steps: int) -> None:
        tutorial_loop(g, d, loader, steps)

    def ours(g: nn.Module, d: nn.Module, steps: int) -> None:
        fit_gan(g, d, loader, GANConfig(steps=steps))

    loops = {"plain tutorial loop": (plain, 1), "fit_gan": (ours, 1), "plain, all cores": (plain, execution.cores())}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in loops}
    peaks = {}
    for name, (loop, threads) in loops.items():
        torch.set_num_threads(threads)
        loop(*networks(device), 10)  # warm up
        peaks[name] = peak(device)
    for beside, company in enumerate((nullcontext, busy)):
        for name, (loop, threads) in list(loops.items()) * ROUNDS:
            torch.set_num_threads(threads)
            players = networks(device)
            with company():
                times[name][beside].append(seconds(partial(loop, *players, STEPS), device))
    runtime.use_threads()
    work = flops(device, loader) * STEPS
    print(runtime.report(), "\n\nimages/s              threads   quiet   beside a busy process   of the peak, quiet")
    for name, (_, threads) in loops.items():
        quiet, beside = (BATCH * STEPS / median(taken) for taken in times[name])
        share = quiet * work / (BATCH * STEPS) / peaks[name]
        print(f"{name:<20} {threads:8} {quiet:7.0f} {beside:23.0f} {share:20.0%}")


def whole_book() -> None:
    """Minutes to execute all chapters and build the pages, in copies of this project."""
    for at_once in sorted({1, min(2, execution.jobs()), execution.jobs()}):
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(ROOT, Path(folder) / "copy", ignore=shutil.ignore_patterns("_build", ".*"))
            command = [sys.executable, "-m", "tools.book", "--root", copy]
            make = partial(subprocess.run, command, check=True, env=os.environ | {"MMGAN_JOBS": str(at_once)})
            print(f"{at_once} at once: {seconds(make, torch.device('cpu')) / 60:.1f} min", flush=True)


def main() -> None:
    """Print both tables, or how long the book takes."""
    if sys.argv[1:] == ["book"]:
        whole_book()
    else:
        training()
        metrics()


if __name__ == "__main__":
    main()
