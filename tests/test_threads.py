import os
import threading

import pytest
import torch

from sppnet_cli.threads import share_out, side_by_side


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_part_once(torch_threads, threads, count):
    torch_threads(threads)
    done = []
    share_out(done.append, range(count))
    assert sorted(done) == list(range(count))


def test_in_as_many_threads_as_torch_uses(torch_threads):
    torch_threads(3)
    together = threading.Barrier(3, timeout=10)
    share_out(lambda _: together.wait(), range(3))


def test_what_a_part_raises_is_raised(torch_threads):
    for threads in (1, 2):
        torch_threads(threads)
        with pytest.raises(ZeroDivisionError):
            share_out(lambda part: 1 // part, [1, 0, 2])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is the point
def test_a_forked_process_has_its_own(torch_threads):
    torch_threads(2)
    share_out(str, range(4))
    child = os.fork()
    if child == 0:
        done = []
        share_out(done.append, range(4))
        os._exit(len(done))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4


@pytest.mark.parametrize("threads", [1, 3, 2])
def test_side_by_side_on_threads_of_their_own(torch_threads, threads):
    """Each may share its work out again, and computes on as many threads as the caller does."""
    torch_threads(threads)
    together = threading.Barrier(3, timeout=10)

    def work(part):
        together.wait()
        done = []
        share_out(done.append, range(4))
        return 10 * part, len(done), torch.get_num_threads()

    assert side_by_side(work, [1, 2, 3]) == [(10, 4, threads), (20, 4, threads), (30, 4, threads)]
