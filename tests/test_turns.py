"""Turns among threads: how they come round, and what they leave as it was."""

import threading
import time
import warnings

import pytest
from test_threads import LONG, side_by_side, up_exclusive

from ugmm_ppl.backends.threads import Turns, cached_property, silence

pytestmark = pytest.mark.usefixtures("quick_compiler")


def test_a_turn_comes_round():
    """Whoever waits has the lock before the one that had it last, though that one asks again at once."""
    turns, order, here = Turns(), [], threading.Event()

    def other():
        here.set()
        with turns:
            order.append("other")

    with turns:
        thread = threading.Thread(target=other)
        thread.start()
        here.wait(LONG)
        while not turns.wanted():
            time.sleep(1e-4)
        with turns:
            assert not turns.wanted()  # which one step outwards would not give it to anybody
    with turns:
        order.append("again")
    thread.join(LONG)
    assert order == ["other", "again"]


def test_training_gives_way_between_two_steps():
    pytest.importorskip("pyro")
    import torch

    from ugmm_ppl.pyro.turns import TURNS, RandomState, in_turns

    drawn, seen = [], []

    def other():
        with up_exclusive("pyro"):
            seen.append((len(drawn), torch.get_rng_state().tolist()))
            torch.manual_seed(99)
            torch.rand(3)
            torch.set_rng_state(before)

    def step(number):
        drawn.append(torch.randn(5).tolist())
        if number == 1:
            thread.start()
            while not TURNS.wanted():
                time.sleep(1e-4)

    before, thread = torch.get_rng_state(), threading.Thread(target=other)
    in_turns(step, 8, RandomState(7))
    thread.join(LONG)
    assert seen[0][0] == 2
    assert seen[0][1] == before.tolist() == torch.get_rng_state().tolist()
    own = torch.Generator().manual_seed(7)
    assert drawn == [torch.randn(5, generator=own).tolist() for _ in range(8)]


def test_an_attribute_is_made_once_without_a_lock():
    """All threads get one object, and one that makes the attribute does not wait for another that does."""

    class Slow:
        @cached_property
        def value(self):
            both.wait(LONG)  # until two threads are making it
            return object()

    one, other, both = Slow(), Slow(), threading.Barrier(2)
    assert not isinstance(side_by_side(lambda: one.value, lambda: other.value)[0], Exception)
    again = Slow()
    first, second = side_by_side(lambda: again.value, lambda: again.value)
    assert first is second is again.value


def test_silence_leaves_the_filters_as_they_were(often):
    before = list(warnings.filters)

    def quiet():
        for _ in range(200):
            with silence():
                warnings.warn("not heard", stacklevel=1)

    assert side_by_side(quiet, quiet, quiet) == [None] * 3
    assert warnings.filters == before


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_forked_process_has_turns_of_its_own():
    """A child is forked while another thread has its turn: that thread does not live in it."""
    import multiprocessing

    turns, held, done = Turns(), threading.Event(), threading.Event()

    def hold():
        with turns:
            held.set()
            done.wait(LONG)

    def child():
        with turns:
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    process.join(LONG)
    done.set()
    thread.join(LONG)
    assert process.exitcode == 0
