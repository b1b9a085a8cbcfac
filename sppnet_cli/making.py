"""Making stages: one after another in this process, or side by side, each in a process of its own.

A stage computes on the number of threads that its description names, not on what the machine has, so that neither the
number of cores nor what runs beside it changes a bit.  The processes are `concurrent.futures`' and are used again.
"""

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from sppnet_cli import console
from sppnet_cli.building import discard_partial, make_run
from sppnet_cli.chain import Plan, Resources, Stage, made_by_other_code, plan
from sppnet_cli.distributed import barrier, world
from sppnet_cli.errors import SppnetError
from sppnet_cli.processes import worker_pool
from sppnet_cli.provenance import code_name, cores
from sppnet_cli.relay import Relay, labelled, relay_to
from sppnet_cli.runs import read_manifest

_PROCESS_GIB = 2.0  # what a stage's process takes, or less, unless it holds much data


def make(targets: Iterable[Stage], how: Resources, *, jobs: int | None = 1, remake: bool = False) -> Plan:
    """Make `targets` and what they need, unless it is there; `jobs` at once, None: as many as fit.

    One that fails ends the others.  Returns what was made and what was used.  Raises as `chain.plan` does, and
    whatever a stage raises.
    """
    found = plan(targets, remake=remake)
    _warn_of_other_code(found)
    barrier()  # all processes of torchrun have seen the same before one of them begins
    if not how.resume and world().first:
        for stage in found.to_make:
            discard_partial(stage.folder)
    left = {stage.folder: stage for stage in found.to_make}
    for stage in found.to_make:
        if stage.check:
            # Its data first, if they are made too: what is wrong with them is said before any longer work.
            for need in stage.needs:
                if need.folder in left and not need.needs:
                    build_stage(left.pop(need.folder), how, remake)
            stage.check()
    stages = list(left.values())
    count = jobs_that_fit(stages, how, jobs)
    if count == 1:
        for stage in stages:
            build_stage(stage, how, remake)
    else:
        _make_side_by_side(stages, how, count, remake)
    return found


def jobs_that_fit(stages: list[Stage], how: Resources, jobs: int | None) -> int:
    """How many of the stages are made at once: `jobs`, or as many as cores and `max_memory` allow.

    One after another under `torchrun` and on a GPU.
    """
    if world().size > 1 or how.device != "cpu" or len(stages) < 2:
        return 1
    if jobs is None:
        threads = max((stage.threads or cores() for stage in stages if not stage.alone), default=cores())
        jobs = min(cores() // threads, int(how.max_memory // _PROCESS_GIB))
    return max(1, min(jobs, len(stages)))


def expected_seconds(stages: list[Stage], how: Resources, jobs: int | None) -> float:
    """About how long it takes to make stages, inputs first: their longest chain, or all of them among the jobs."""
    if not stages:
        return 0.0
    together = sum(stage.cost().seconds for stage in stages) / jobs_that_fit(stages, how, jobs)
    return max(together, *_remaining_seconds(stages).values())


def build_stage(stage: Stage, how: Resources, remake: bool = False) -> None:
    """Make one stage whose inputs are there, in this process."""
    with _threads(stage.threads):
        make_run(
            stage.folder,
            stage.identity,
            lambda folder: stage.build(stage.config, stage.paths(), folder, how),
            sources=stage.paths(),
            together=stage.together,
            unfinished=stage.unfinished,
            remake=remake,
        )


def device_name(device: str) -> str:
    """What a GPU is called."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch, numpy and scipy compute on so many threads: another number gives products of other last bits."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _warn_of_other_code(found: Plan) -> None:
    """One line about runs that are used and were made by other code than this."""
    others = [stage for stage in found.used if made_by_other_code(stage)]
    if others:
        folder = others[0].folder
        more = f" and {len(others) - 1} more" * (len(others) > 1)
        console.warn(
            f"{folder}{more}: made by other code ({code_name(read_manifest(folder))}); --remake makes it anew"
        )


def _make_side_by_side(stages: list[Stage], how: Resources, jobs: int, remake: bool) -> None:
    """Make stages in processes of their own, those on which the most work waits first."""
    share = replace(how, workers=max(1, how.workers // jobs) if how.workers else 0)
    names = _labels(stages)
    remaining = _remaining_seconds(stages)
    waiting = sorted(stages, key=lambda stage: remaining[stage.folder], reverse=True)
    running: dict[Future[None], Stage] = {}
    context = multiprocessing.get_context("spawn")
    with Relay(context) as relay:
        workers = worker_pool(jobs, relay_to, relay.settings())
        try:
            while waiting or running:
                for stage in _startable(waiting, list(running.values()), how, jobs):
                    waiting.remove(stage)
                    if stage.alone:
                        build_stage(stage, how, remake)
                    else:
                        running[workers.submit(_build, stage, share, remake, names[stage.folder])] = stage
                # The pool watches those processes alone that were there when it was last given something to do.
                workers.submit(os.getpid)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    stage = running.pop(future)
                    try:
                        future.result()
                    except BrokenProcessPool:
                        raise SppnetError(
                            f"{stage.folder}: a process was ended while it made this or another stage, perhaps for lack "
                            "of memory; the same command resumes, --jobs 1 takes less memory"
                        ) from None
        except BaseException:
            for process in list((workers._processes or {}).values()):
                process.terminate()
            workers.shutdown(wait=True, cancel_futures=True)
            raise
        workers.shutdown()


def _startable(waiting: list[Stage], running: list[Stage], how: Resources, jobs: int) -> list[Stage]:
    """What can be started beside `running`, in the order of `waiting`; one that measures time only by itself."""
    unmade = {stage.folder for stage in (*waiting, *running)}
    ready = [s for s in waiting if not any(need.folder in unmade for need in s.needs)]
    beside = [s for s in ready if not s.alone]
    if not beside and not running:
        return ready[:1]
    chosen: list[Stage] = []
    memory = sum(_memory(s) for s in running)
    while beside and len(running) + len(chosen) < jobs:
        busy = {s.shares for s in (*running, *chosen) if s.shares}
        # A stage that would fill the cache which another one fills already would mostly wait for it.
        stage = next((s for s in beside if s.shares not in busy), beside[0])
        if (running or chosen) and memory + _memory(stage) > how.max_memory:
            break
        memory += _memory(stage)
        beside.remove(stage)
        chosen.append(stage)
    return chosen


@functools.cache
def _memory(stage: Stage) -> float:
    return stage.cost().memory


def _remaining_seconds(stages: list[Stage]) -> dict[Path, float]:
    """How long each stage and the longest chain of those that follow it take, by its folder; inputs come first."""
    remaining: dict[Path, float] = {}
    for stage in reversed(stages):
        after = (remaining[s.folder] for s in stages if any(need.folder == stage.folder for need in s.needs))
        remaining[stage.folder] = stage.cost().seconds + max(after, default=0.0)
    return remaining


def _labels(stages: list[Stage]) -> dict[Any, str]:
    """What each stage's messages begin with: its folder's name without the digest."""
    return {stage.folder: stage.folder.name.rsplit("-", 1)[0] for stage in stages}


def _build(stage: Stage, how: Resources, remake: bool, label: str) -> None:
    with labelled(label):
        build_stage(stage, how, remake)
