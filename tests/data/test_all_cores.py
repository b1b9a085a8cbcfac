import threading
import time
import warnings

import pytest

from sppnet_cli.data.all_cores import on_all_cores


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_results_in_the_order_of_the_items(count):
    assert on_all_cores(lambda k: 2 * k, range(count), "double") == [2 * k for k in range(count)]


def test_side_by_side():
    together = threading.Barrier(2, timeout=10)
    on_all_cores(lambda k: together.wait() if k in (0, 64) else None, range(128), "meet")


def test_what_one_raises_ends_the_others():
    done = []

    def work(k):
        if k == 0:
            raise ZeroDivisionError
        time.sleep(1e-4)
        done.append(k)

    with pytest.raises(ZeroDivisionError):
        on_all_cores(work, range(64_000), "fail")
    assert len(done) < 64_000


def test_warnings_are_not_shown(recwarn):
    on_all_cores(lambda _: warnings.warn("odd", stacklevel=1), range(3), "warn")
    assert not recwarn
