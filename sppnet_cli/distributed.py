"""Several processes under `torchrun`: which one this is, and what they tell each other.

One process needs none of it: `world()` is `World(0, 1)`, `gather` gives a list of one, `barrier` does nothing.
Torch is imported inside the functions, so that the command line stays quick.
"""

import contextlib
import datetime
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sppnet_cli.errors import SppnetError, UsageError

_TIMEOUT = datetime.timedelta(
    days=1
)  # long: the others wait for what the first does alone; a death is noticed at once

_START = "start the processes with torchrun, or unset its variables"


class World(NamedTuple):
    """This process among all."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


def world() -> World:
    """Rank and number of processes; raises `UsageError` where torchrun's variables are broken."""
    rank, size = _variable("RANK", 0), _variable("WORLD_SIZE", 1)
    if not 0 <= rank < size:
        raise UsageError(f"RANK {rank} of WORLD_SIZE {size}: {_START}")
    if size > 1:
        _require("RANK")
    return World(rank, size)


def _require(*names: str) -> None:
    """Raise `UsageError` where variables of torchrun are missing."""
    if lacking := [name for name in names if name not in os.environ]:
        raise UsageError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but there is no {lacking[0]}: {_START}")


def _variable(name: str, default: int) -> int:
    """A number that torchrun puts into the environment."""
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UsageError(f"{name} is {text[:20]!r}, not a number: {_START}")
    return int(text)


def local_device(device: str) -> str:
    """The device of this process: `cuda` becomes the GPU of its local rank under torchrun."""
    if device == "cuda" and world().size > 1:
        return f"cuda:{_variable('LOCAL_RANK', 0)}"
    return device


def local_share(count: int) -> int:
    """What of `count` workers of this machine falls to this process, one at least (none of none)."""
    return max(1, count // max(1, _variable("LOCAL_WORLD_SIZE", 1))) if count else 0


def join(device: str = "cpu") -> World:
    """Meet the other processes (gloo, and NCCL for tensors on a GPU), once; returns the `World`."""
    here = world()
    if here.size > 1:
        import torch
        from torch import distributed

        if not distributed.is_initialized():
            _require("MASTER_ADDR", "MASTER_PORT")
            if device.startswith("cuda"):
                torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
            # Torch imports this at some first training step; its functions' defaults would then keep the group, whose
            # threads would run on after `leave` and now and then abort the process at its end.
            import torch.distributed.nn

            with told():
                distributed.init_process_group(backend, timeout=_TIMEOUT)
    return here


def leave() -> None:
    """Part from the other processes."""
    if world().size > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks, on every one; of anything that pickles."""
    here = join()
    if here.size == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * here.size
    with told():
        distributed.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, on every process."""
    here = join()
    if here.size == 1:
        return value
    from torch import distributed

    values = [value]
    with told():
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Wait for all processes."""
    gather(None)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns the failure of another process into one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise SppnetError(
            f"process {world().rank} of {world().size} lost the others: {reason}; see the first error above"
        ) from None
