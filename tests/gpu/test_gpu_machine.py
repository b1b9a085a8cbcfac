"""Time, memory, limits and several processes of a GPU; the stand-in has none of these."""

import subprocess
import sys

import pytest
import torch

from sppnet_cli.clock import Clock
from sppnet_cli.errors import UsageError
from sppnet_cli.evaluation import limits
from sppnet_cli.evaluation.timing import time_image
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.precision import require
from sppnet_cli.protocols import PAPER

pytestmark = pytest.mark.gpu


def test_the_clock_waits(cuda):
    numbers = torch.rand(4096, 4096, device=cuda)

    def work():
        for _ in range(100):
            torch.mm(numbers, numbers)

    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    clock = Clock(cuda)
    start.record()
    work()
    end.record()
    seconds = clock.lap()
    assert seconds > 0.9 * start.elapsed_time(end) / 1000
    assert clock.lap() < seconds / 2  # nothing is left to be done


@pytest.mark.parametrize("kind", [SppWindows, RcnnWindows])
def test_the_times_of_an_image(cuda, make_network, image, boxes, kind):
    network = make_network()
    extractor = kind(network, PAPER, (160, 224), cuda)
    time = time_image(extractor, Layer("fc7", network.head), image, boxes)
    assert min(time.conv, time.pool, time.layers, time.preparation) > 0


def test_images_leave_no_memory_behind(cuda, make_network, image, boxes):
    extractor = SppWindows(make_network(width=1.0), PAPER, (480, 688), cuda)

    def once():
        extractor.pool(extractor.prepare(image), boxes)
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    first = once()
    assert [once() for _ in range(3)] == [first] * 3
    reserved = torch.cuda.memory_reserved()
    once()
    assert torch.cuda.memory_reserved() == reserved


def test_a_network_that_nobody_holds_is_freed(cuda, make_network, image, boxes):
    before = torch.cuda.memory_allocated()
    extractor = SppWindows(make_network(), PAPER, (160,), cuda)
    extractor.pool(extractor.prepare(image), boxes)
    assert torch.cuda.memory_allocated() > before
    del extractor
    assert torch.cuda.memory_allocated() == before


def test_limits(cuda):
    for dtype in (torch.float32, torch.bfloat16):
        assert limits.gemm_gflops(cuda, dtype=dtype) > 0
    assert limits.write_bandwidth(10**8, cuda) > 0
    assert limits.machine(cuda)["gpu"]


def test_the_gpu_is_asked_for_bf16(cuda):
    if torch.cuda.get_device_capability() >= (8, 0):
        assert require("bf16", cuda) == torch.bfloat16
    else:
        with pytest.raises(UsageError, match="on this cuda"):
            require("bf16", cuda)


# Dropout is off: each process draws its own.  Both processes have the same card, which NCCL may refuse.
WORK = """
import sys
from pathlib import Path

import torch

from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.distributed import gather, join, leave, world
from sppnet_cli.learning.pretrain import Recipe, pretrain
from sppnet_cli.network.sppnet import Dropout, NetworkSpec, SPPNet

data, out, backend = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
Dropout.forward = lambda self, x: x
if backend == "gloo" and "RANK" in __import__("os").environ:
    torch.distributed.init_process_group("gloo")
join("cuda:0")
assert gather(world().rank) == list(range(world().size))
network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 24, 2))
recipe = Recipe((224, 180), 2, 4, 1e-4, "one-cycle", "he", 5.0)
out.mkdir(exist_ok=True)
pretrain(network, load_image_folder(data), recipe, seed=0, device="cuda:0", workers=0, out=out)
if world().first:
    torch.save(network.cpu().state_dict(), out / "learnt.pt")
leave()
"""


def start(script, toy, out, backend, processes):
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    command = [
        sys.executable,
        *(several if processes > 1 else ()),
        script,
        toy.paths[0].parents[1],
        out,
        backend,
    ]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)


def test_two_processes_learn_what_one_learns(cuda, toy, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    alone = start(script, toy, tmp_path / "one", "none", 1)
    assert alone.returncode == 0, alone.stderr
    together = start(script, toy, tmp_path / "two", "nccl", 2)
    if together.returncode and "Duplicate GPU" in together.stdout + together.stderr:
        together = start(script, toy, tmp_path / "two", "gloo", 2)
    assert together.returncode == 0, together.stderr
    one, two = (torch.load(tmp_path / name / "learnt.pt", weights_only=True) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=1e-4, msg=name)
