"""Checkpoints through kills, damage and forgery, and the weights that ship with the library."""

import hashlib
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmgan_lib import checkpoint
from mmgan_lib.checkpoint import CheckpointError, latest, load, load_pretrained, save, save_pretrained


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 1))


def filled(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(k == l and torch.equal(v, w) for (k, v), (l, w) in pairs)  # noqa: E741


def two_checkpoints(folder: Path) -> tuple[Path, Path]:
    return tuple(save(folder, step=s, models={"net": filled(s)}, state={"step": s}) for s in (1, 2))


# What goes in comes out


def test_training_resumed_is_training_that_never_stopped(tmp_path: Path) -> None:
    """Weights, buffers, Adam's moments and the random numbers, bit for bit."""

    def start() -> tuple[nn.Module, torch.optim.Adam, torch.Generator]:
        net = network()
        return net, torch.optim.Adam(net.parameters(), lr=1e-2), torch.Generator().manual_seed(3)

    def train(net: nn.Module, adam: torch.optim.Adam, generator: torch.Generator, steps: int) -> None:
        for _ in range(steps):
            adam.zero_grad()
            net(torch.randn(8, 2, 4, 4, generator=generator)).square().mean().backward()
            adam.step()

    net, adam, generator = start()
    train(net, adam, generator, steps=3)
    state = {"adam": adam.state_dict(), "generator": generator.get_state(), "torch": torch.get_rng_state()}
    path = save(tmp_path, step=3, models={"net": net}, state=state)
    train(net, adam, generator, steps=3)

    resumed, other_adam, other_generator = start()
    restored = load(path, {"net": resumed})
    assert torch.equal(restored["torch"], state["torch"])
    other_adam.load_state_dict(restored["adam"])
    other_generator.set_state(restored["generator"])
    train(resumed, other_adam, other_generator, steps=3)

    assert same(resumed, net)
    for ours, theirs in zip(other_adam.state.values(), adam.state.values(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert resumed[1].num_batches_tracked == 6


def test_a_checkpoint_is_one_file_that_pytorch_reads_and_then_its_sha256(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "run", step=500, models={"a": network(), "b": filled(1)}, state={"x": 1})
    assert path == latest(tmp_path / "new" / "run") == tmp_path / "new" / "run" / "step-00000500"
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    plain = torch.load(path, weights_only=True)
    assert plain["state"] == {"x": 1}
    assert torch.equal(plain["weights"]["b.weight"], filled(1).weight)


def test_the_latest_has_the_most_steps(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for step in (0, 99_999_999, 100_000_000):
        save(tmp_path, step=step, models={}, keep=9)
        assert latest(tmp_path).name == f"step-{step:08d}"


def test_memory_format_is_the_models_own(tmp_path: Path) -> None:
    saved = network(0).to(memory_format=torch.channels_last)
    assert not saved[0].weight.is_contiguous()
    path = save(tmp_path, step=1, models={"net": saved})
    plain, last = network(1), network(2).to(memory_format=torch.channels_last)
    load(path, {"net": plain})
    load(path, {"net": last})
    assert same(plain, saved)
    assert same(last, saved)
    assert plain[0].weight.is_contiguous()
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path, restored = save(tmp_path, step=1, models={"net": network(0).to(dtype)}), network(1).to(dtype)
    load(path, {"net": restored})
    assert same(restored, network(0).to(dtype))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def tied(value: float) -> nn.Sequential:
        net = nn.Sequential(filled(value), filled(0))
        net[1].weight = net[0].weight
        return net

    restored = tied(5)
    load(save(tmp_path, step=1, models={"net": tied(3)}), {"net": restored})
    assert restored[1].weight is restored[0].weight
    assert restored[0].weight.eq(3).all()


def test_one_of_several_models_can_be_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, step=1, models={"generator": network(0), "generator_ema": filled(2)})
    restored = filled(9)
    load(path, {"generator_ema": restored})
    assert restored.weight.eq(2).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_between_devices(tmp_path: Path) -> None:
    net = network().cuda()
    adam = torch.optim.Adam(net.parameters(), fused=True)
    net(torch.randn(4, 2, 4, 4, device="cuda")).sum().backward()
    adam.step()
    path = save(tmp_path, step=1, models={"net": net}, state={"adam": adam.state_dict()})
    on_cpu, on_cuda = network(1), network(2).cuda()
    state = load(path, {"net": on_cpu})
    load(path, {"net": on_cuda})
    assert same(on_cpu.cuda(), net)
    assert same(on_cuda, net)
    moments = state["adam"]["state"][0]["exp_avg"]
    assert moments.device.type == "cpu"
    assert torch.equal(moments, adam.state_dict()["state"][0]["exp_avg"].cpu())


# Keeping


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step=step, models={"net": filled(step)}, keep=3)
    assert sorted(child.name for child in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (2, 3, 4)]


def test_a_run_that_went_back_never_loses_what_it_just_saved(tmp_path: Path) -> None:
    for step in (100, 200, 50):
        path = save(tmp_path, step=step, models={}, keep=1)
        assert path.exists()
    assert sorted(child.name for child in tmp_path.iterdir()) == ["step-00000050", "step-00000200"]


def test_a_folder_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save("~/run", step=1, models={"net": filled(1)})
    assert latest("~/run") == tmp_path / "run/step-00000001"
    net = filled(0)
    load("~/run/step-00000001", {"net": net})
    assert same(net, filled(1))


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-7.png", "step-00000009 (copy)", "history.json"):
        (tmp_path / name).write_text("mine")
    save(tmp_path, step=1, models={}, keep=1)
    assert save(tmp_path, step=2, models={}, keep=1) == latest(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    for value in (1, 2):
        path = save(tmp_path, step=7, models={"net": filled(value)}, state={"value": value})
    net = filled(0)
    assert load(path, {"net": net}) == {"value": 2}
    assert net.weight.eq(2).all()
    assert [child.name for child in tmp_path.iterdir()] == ["step-00000007"]


# Refused before anything is written


def generator() -> object:
    yield


@pytest.mark.parametrize(
    "value", [np.zeros(3), Path("x"), [1, {"deep": np.random.RandomState(0)}], lambda: 0, generator(), nn.Linear(1, 1)]
)
def test_state_that_cannot_be_read_safely_is_refused_and_nothing_is_touched(tmp_path: Path, value: object) -> None:
    _, second = two_checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"state\['bad'\] is or holds something .* \(\w+\); expected tensors, numbers"):
        save(tmp_path, step=3, models={"net": filled(3)}, state={"good": 1, "bad": value})
    assert sorted(child.name for child in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    assert load(second, {"net": filled(0)}) == {"step": 2}


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        ({"keep": 0}, ValueError, "keep is 0; expected at least 1"),
        ({"models": {"a.b": filled(0)}}, KeyError, "a.b"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, bad: dict, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        save(tmp_path / "run", **{"step": 1, "models": {}} | bad)
    assert not (tmp_path / "run").exists()


# Damage


def refused(path: Path, *words: str) -> None:
    """``load`` raises one sentence with these words, and leaves the model as it was."""
    net = filled(9)
    with pytest.raises(CheckpointError) as caught:
        load(path, {"net": net})
    message = str(caught.value)
    assert all(word in message for word in (str(path), "found", *words)), message
    assert message.endswith(".")
    assert "\n" not in message
    assert net.weight.eq(9).all()


def test_one_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    _, second = two_checkpoints(tmp_path)
    content = second.read_bytes()
    for place in [0, *range(len(content) - 33, len(content)), *random.Random(0).sample(range(len(content)), 100)]:
        tampered = bytearray(content)
        tampered[place] ^= 1
        second.write_bytes(tampered)
        refused(second, f"{second} is damaged", "expected the last 32 to be the sha256")
    second.write_bytes(content)
    assert load(second, {"net": filled(0)}) == {"step": 2}


def test_a_file_of_another_length_is_refused_with_its_size(tmp_path: Path) -> None:
    _, second = two_checkpoints(tmp_path)
    whole = second.read_bytes()
    for content in (whole[:-1], whole[:-10], whole[:-33], whole[1:], whole[:32], b"x", b"", whole + b"\0", whole * 2):
        second.write_bytes(content)
        refused(second, f"found {len(content)} bytes")


def test_the_checkpoint_before_a_damaged_one_is_as_good_as_ever(tmp_path: Path) -> None:
    first, second = two_checkpoints(tmp_path)
    second.write_bytes(second.read_bytes()[:-1])
    assert latest(tmp_path) == second  # and not in silence the one before it
    refused(second, "delete it to go on from the checkpoint before it")
    second.unlink()
    assert latest(tmp_path) == first
    assert load(first, {"net": filled(0)}) == {"step": 1}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    refused(tmp_path, "no such file")
    refused(tmp_path / "step-00000003", "no such file")


def forge(path: Path, content: bytes) -> None:
    path.write_bytes(content + hashlib.sha256(content).digest())


class Exploit:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_a_forged_pickle_is_never_executed(tmp_path: Path) -> None:
    """Its checksum is right, because who forges the one can forge the other: what protects is how it is read."""
    _, second = two_checkpoints(tmp_path / "run")
    target = tmp_path / "executed"
    torch.save({"weights": {}, "state": Exploit(target)}, tmp_path / "exploit.pt")
    for content in ((tmp_path / "exploit.pt").read_bytes(), pickle.dumps(Exploit(target))):
        forge(second, content)
        refused(second, "is not a checkpoint")
    assert not target.exists()
    torch.load(tmp_path / "exploit.pt", weights_only=False)
    assert target.exists()  # the exploit would have worked


@pytest.mark.parametrize("content", [[], {}, {"weights": {}}, {"state": {}}, {"weights": 1, "state": {}}])
def test_a_forged_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    _, second = two_checkpoints(tmp_path)
    torch.save(content, tmp_path / "other.pt")
    forge(second, (tmp_path / "other.pt").read_bytes())
    refused(second, "is not a checkpoint")


# The wrong model


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nn.Linear(2, 3), r"holds \(2,\) float32 for b\.bias, but the model has \(3,\) float32\."),
        (nn.Linear(2, 2, bias=False), r"holds \(2,\) float32 for b\.bias, but the model has nothing\."),
        (nn.Sequential(nn.Linear(2, 2)), r"holds nothing for b\.0\.bias, but the model has \(2,\) float32\."),
        (nn.Linear(2, 2).double(), r"holds \(2,\) float32 for b\.bias, but the model has \(2,\) float64\."),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_no_model_is_half_loaded(
    tmp_path: Path, wrong: nn.Module, message: str
) -> None:
    path = save(tmp_path, step=1, models={"a": filled(1), "b": filled(1)})
    fits, before = filled(9), {k: v.clone() for k, v in wrong.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load(path, {"a": fits, "b": wrong})
    assert fits.weight.eq(9).all()
    assert all(torch.equal(v, before[k]) for k, v in wrong.state_dict().items())


def test_a_model_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, step=1, models={"a": filled(1)})
    with pytest.raises(CheckpointError, match=r"holds nothing for critic\.bias"):
        load(path, {"critic": filled(1)})


# Kills


class Killed(BaseException):
    """Stands for the moment at which a process dies."""


@pytest.mark.parametrize("next_step", [2, 3], ids=["the same step again", "the next step"])
def test_a_kill_before_any_call_to_the_file_system_leaves_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_step: int
) -> None:
    calls = deadline = 0
    fsync = os.fsync

    def dying(call):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadline:
                if call is fsync and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.ftruncate(args[0], 100)  # what was written had not reached the disk
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    for name in ("mkdir", "open", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    values = []
    while True:
        run = tmp_path / str(len(values))
        deadline = 0
        two_checkpoints(run)
        calls, deadline = 0, len(values) + 1
        try:
            save(run, step=next_step, models={"net": filled(30)}, state={"step": 30}, keep=1)
        except Killed:
            found, net = latest(run), filled(0)
            for path in run.glob("step-*"):
                load(path, {"net": net})  # whole, whichever it is
            values.append(load(found, {"net": net})["step"])
            assert net.weight.eq(values[-1]).all()
            calls, deadline = 0, 0
            after = save(run, step=4, models={"net": filled(4)}, keep=1)  # clears what the kill left
            assert list(run.iterdir()) == [after]
        else:
            break
    assert values == sorted(values)
    assert set(values) == {2, 30}
    assert len(values) == calls >= 6


TRAINING = """
import os, random, signal, sys, time
import torch
from torch import nn
from mmgan_lib.checkpoint import latest, load, save

folder, kills = sys.argv[1], int(sys.argv[2])
net = nn.Linear(300, 300)
choose = random.Random(0)

def train(told):
    path = latest(folder)
    step = load(path, {"net": net})["step"] if path else 0
    while True:
        step += choose.random() < 0.7  # else the same step again
        nn.init.constant_(net.weight, step)
        save(folder, step=step, models={"net": net}, state={"step": step})
        os.write(told, step.to_bytes(4, "big"))

half_done = 0
for kill in range(kills):
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        choose.seed(kill)
        train(tell)
    os.close(tell)
    reported = os.read(listen, 4)  # it has saved at least once
    time.sleep(choose.uniform(0, 0.04))
    until = time.monotonic() + 2 * (kill % 2)  # every other kill falls into the writing of a file
    while time.monotonic() < until and not os.path.exists(folder + "/.unfinished"):
        pass
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the training ended by itself"
    half_done += os.path.exists(folder + "/.unfinished")
    while more := os.read(listen, 4):
        reported = more
    os.close(listen)
    step = load(latest(folder), {"net": net})["step"]
    assert net.weight.eq(step).all(), f"weights of another step than {step}"
    assert step >= int.from_bytes(reported, "big"), f"step {step} where {reported} had been saved"
print(step, half_done)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_sigkill_at_random_moments_never_loses_a_saved_step(tmp_path: Path) -> None:
    kills = 15
    finished = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path), str(kills)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    steps, half_done = map(int, finished.stdout.split())
    assert steps >= kills / 4
    assert half_done >= 2, "the kills fell between saves and tested nothing"


# Weights that ship


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def ship(name: str, module: nn.Module) -> dict:
    return save_pretrained(name, module, command=f"make {name}", seed=3, seconds=1.26, metrics={"accuracy": 0.9})


def test_pretrained_weights_come_back_with_what_is_known_of_them(weights: Path) -> None:
    entry, other, net = ship("net", network(0)), ship("another", filled(1)), network(1)
    assert load_pretrained("net", net) == entry
    assert load_pretrained("another", filled(0)) == other
    assert same(net, network(0))
    assert set(entry) == {"command", "seed", "tier", "device", "seconds", "versions", "metrics", "sha256"}
    assert (entry["command"], entry["seed"], entry["seconds"]) == ("make net", 3, 1.3)
    assert sorted(file.name for file in weights.iterdir()) == [
        "another.safetensors",
        "manifest.json",
        "net.safetensors",
    ]


def test_the_same_weights_give_the_same_bytes(weights: Path) -> None:
    ship("a", network())
    ship("b", filled(1))
    first = {file.name: file.read_bytes() for file in weights.iterdir()}
    shutil.rmtree(weights)
    ship("b", filled(1))
    ship("a", network().to(memory_format=torch.channels_last))
    assert {file.name: file.read_bytes() for file in weights.iterdir()} == first


def test_unknown_names_are_answered_with_the_known(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights 'x'; expected one of \[\]"):
        load_pretrained("x", filled(0))
    ship("b", filled(1))
    ship("a", filled(1))
    with pytest.raises(ValueError, match=r"no weights 'x'; expected one of \['a', 'b'\]"):
        load_pretrained("x", filled(0))


def test_pretrained_weights_that_are_not_the_manifests_are_refused(weights: Path) -> None:
    entry, net = ship("net", filled(1)), filled(9)
    file = weights / "net.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    expected = rf"found sha256 \w{{64}}, expected sha256 {entry['sha256']}; `make net` makes it again\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_pretrained("net", net)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"net\.safetensors: found no such file, expected"):
        load_pretrained("net", net)
    assert net.weight.eq(9).all()


def test_pretrained_weights_for_another_model_are_refused(weights: Path) -> None:
    ship("net", filled(1))
    with pytest.raises(CheckpointError, match=r"holds \(2,\) float32 for bias, but the model has \(3,\) float32"):
        load_pretrained("net", nn.Linear(2, 3))
