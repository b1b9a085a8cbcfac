import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sppnet_cli.data.ahead import ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_in_order_and_no_further_ahead_than_told(threads, count):
    begun = []
    lock = threading.Lock()

    def square(item):
        with lock:
            begun.append(item)
        return item**2

    with ThreadPoolExecutor(threads) as pool:
        for item, made in enumerate(ahead(pool, square, range(20), count)):
            assert made.result() == item**2
            assert max(begun) <= item + count
    assert sorted(begun) == list(range(20))


def test_what_one_raises_is_raised_there_alone():
    with ThreadPoolExecutor(2) as pool:
        made = list(ahead(pool, lambda item: 6 // item, [1, 0, 2], 1))
        assert made[0].result() == 6
        assert made[2].result() == 3
        with pytest.raises(ZeroDivisionError):
            made[1].result()


def test_what_is_not_taken_is_not_begun():
    begun = []
    release = threading.Event()

    def wait(item):
        begun.append(item)
        release.wait()

    with ThreadPoolExecutor(1) as pool:
        items = ahead(pool, wait, range(10), 4)
        next(items)
        items.close()
        release.set()
    assert begun == [0]


def test_nothing():
    with ThreadPoolExecutor(1) as pool:
        assert list(ahead(pool, abs, [], 3)) == []
