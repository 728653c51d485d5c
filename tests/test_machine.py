"""What threads are given to do, and how far ahead they run."""

from threading import Lock

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from svp import machine
from svp.machine import each, one_blas_thread


@pytest.mark.parametrize("n_threads", [1, 3])
def test_results_come_in_order_and_few_are_made_ahead(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "n_cores", lambda: 4)
    begun, lock = [], Lock()

    def work(i: int) -> int:
        with lock:
            begun.append(i)
        return i * i

    results = each(work, range(50), n_threads)
    assert next(results) == 0
    assert len(begun) <= 2 * n_threads + 1
    assert list(results) == [i * i for i in range(1, 50)]
    assert sorted(begun) == list(range(50))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_comes_where_its_result_would(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "n_cores", lambda: 4)
    results = each(lambda i: 6 // i, [3, 2, 0, 1], n_threads)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_last_one_out_gives_the_threads_of_products_back() -> None:
    def n_threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2, user_api="blas"):
        one_blas_thread.__enter__()
        one_blas_thread.__enter__()
        assert n_threads() == {1}
        one_blas_thread.__exit__()  # who came first may leave first
        assert n_threads() == {1}
        with pytest.raises(ZeroDivisionError), one_blas_thread:
            1 / 0  # noqa: B018
        assert n_threads() == {1}
        one_blas_thread.__exit__()
        assert n_threads() == {2}
