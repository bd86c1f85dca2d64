"""How far work has come: shares of nested loops, told to whoever waits."""

from collections.abc import Iterator

import pytest

from lens_interventions._progress import steps, told_to


def test_loops_inside_loops_share_out_the_part_around_them() -> None:
    told: list[float] = []
    with told_to(told.append):
        for _ in steps("ab"):
            for _ in steps(range(2)):
                pass
    assert told == [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1]


def test_a_loop_that_is_left_early_leaves_the_next_its_share() -> None:
    told: list[float] = []
    with told_to(told.append):
        for _ in steps(range(4)):
            break
        told.clear()
        assert list(steps("ab")) == ["a", "b"]
    assert told == [0, 0.5, 1]


def test_nobody_waits_after_the_block_and_in_other_blocks_somebody_else() -> None:
    outer: list[float] = []
    inner: list[float] = []
    with told_to(outer.append):
        with told_to(inner.append):
            list(steps("a"))
        assert outer == []
        list(steps("a"))
    list(steps("abc"))
    assert outer == inner == [0, 1]


def test_steps_of_an_iterator_need_a_number_which_need_not_be_exact() -> None:
    def three() -> Iterator[int]:
        yield from range(3)

    told: list[float] = []
    with told_to(told.append):
        assert list(steps(three(), total=2)) == [0, 1, 2]
        with pytest.raises(TypeError, match="give total="):
            list(steps(three()))
    assert told == [0, 0.5, 1, 1]
