"""fit_gan on two real processes: the networks that one process makes of the joint batch.

In double precision, where rounding (sums of slices add up in another order) stays far below the tolerance.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from conftest import ROOT
from torch import nn

from mmgan_lib import checkpoint
from mmgan_lib.datasets import Loader
from mmgan_lib.losses import R1, R2
from mmgan_lib.runtime import seed_everything
from mmgan_lib.training import GANConfig, GANHistory, fit_gan
from mmgan_lib.training.processes import Processes

PLAYED = {
    "penalised": GANConfig(steps=12, loss="relativistic", penalties=(R1(0.5), R2(0.5)), ema=0.9, checkpoint_every=6),
    "critic": GANConfig(steps=12, loss="wasserstein", weight_clip=0.1, n_critic=2, ema=0.9, checkpoint_every=6),
}
PROCESSES = 2


def play(
    name: str, folder: Path, accelerator: Accelerator | None = None, *, steps: int = 12, seed: int = 0, batch: int = 8
) -> GANHistory:
    """One game, begun or gone on with in ``folder``."""
    torch.set_default_dtype(torch.float64)
    seed_everything(seed)
    generator = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    generator.latent_dim = 3
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    points = torch.randn(100, 2, generator=torch.Generator().manual_seed(3)) + 2
    return fit_gan(
        *(generator, discriminator, Loader(points, batch, seed=1), dataclasses.replace(PLAYED[name], steps=steps)),
        watch=lambda step, ema, _: ema(torch.ones(1, 3)),
        watch_at=(steps,),
        folder=folder / name,
        resume=True,
        accelerator=accelerator,
    )


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint.latest(folder / name), weights_only=True)["weights"]


@pytest.fixture(scope="module", autouse=True)
def single_precision_afterwards() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, dict[str, GANHistory]]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, {name: play(name, folder) for name in PLAYED}


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """What this file leaves behind as a script of two processes; they take over one game half-way."""
    folder = tmp_path_factory.mktemp("together")
    play("penalised", folder, steps=6)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launch, __file__, folder], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", PLAYED)
def test_two_processes_make_the_networks_of_one(name: str, alone, together: Path) -> None:
    ours, theirs = weights(together, name), weights(alone[0], name)
    assert ours.keys() == theirs.keys()
    assert {key.split(".")[0] for key in ours} == {"generator", "discriminator", "ema"}
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("process", range(PROCESSES))
def test_every_process_tells_the_losses_of_the_joint_batch(name: str, process: int, alone, together: Path) -> None:
    told = torch.load(together / f"{name}-{process}.pt", weights_only=True)
    torch.testing.assert_close(told["losses"], alone[1][name].discriminator_loss, atol=1e-6, rtol=0)
    assert torch.equal(told["ema"], torch.load(together / f"{name}-0.pt", weights_only=True)["ema"])
    assert told["watched"] == ([12] if process == 0 else [])


def test_a_batch_that_cannot_be_shared_equally_is_refused(together: Path) -> None:
    refusals = [(together / f"refused-{process}.txt").read_text() for process in range(PROCESSES)]
    assert refusals == ["A batch has 9 samples; expected a multiple of the 2 processes."] * PROCESSES


def test_one_process_with_an_accelerator_changes_nothing(alone, tmp_path: Path) -> None:
    history = play("penalised", tmp_path, Accelerator(cpu=True))
    assert torch.equal(history.generator_loss, alone[1]["penalised"].generator_loss)
    theirs = weights(alone[0], "penalised")
    assert all(torch.equal(value, theirs[key]) for key, value in weights(tmp_path, "penalised").items())


def test_shares_are_the_whole_in_order() -> None:
    class Two:
        num_processes = 2

    joint, shares = torch.arange(6), []
    for Two.process_index in range(2):
        shares.append(Processes(Two()).share(joint))
    assert [share.tolist() for share in shares] == [[0, 1, 2], [3, 4, 5]]


def main(folder: Path) -> None:
    """One of the processes: each begins with other weights, of which the main process's are to count."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == PROCESSES
    me = accelerator.process_index
    for name in PLAYED:
        history = play(name, folder, accelerator, seed=me)
        ema = torch.cat([weight.flatten() for weight in history.ema.parameters()])
        told = {"losses": history.discriminator_loss, "ema": ema, "watched": list(history.watched)}
        torch.save(told, folder / f"{name}-{me}.pt")
    try:
        play("critic", folder / "refused", accelerator, batch=9)
    except ValueError as refusal:
        (folder / f"refused-{me}.txt").write_text(str(refusal))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
