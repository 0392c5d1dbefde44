"""What can be known of the parallel parts without starting a process: schedules, memory, bad input."""

import pytest
import torch
from torch import nn

from dlbook.train.parallel.data import average_gradients
from dlbook.train.parallel.pipeline import Action, gpipe, one_forward_one_backward, timetable
from dlbook.train.parallel.zero import bytes_per_process

BOTH = pytest.mark.parametrize("schedule", [gpipe, one_forward_one_backward])


def most_kept(actions: list[Action]) -> int:
    """How many micro-batches a stage holds at once."""
    kept, most = 0, 0
    for kind, _ in actions:
        kept += 1 if kind == "forward" else -1
        most = max(most, kept)
    return most


@BOTH
@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("micros", [1, 3, 8])
def test_bubble_is_what_the_formula_says(schedule, stages, micros):
    schedules = [schedule(stage, stages, micros) for stage in range(stages)]
    begins = timetable(schedules, forward=1, backward=2)
    end = max(times[-1] for times in begins) + 2
    assert 1 - 3 * micros / end == pytest.approx((stages - 1) / (micros + stages - 1))
    assert all(len(set(actions)) == 2 * micros for actions in schedules)


def test_early_backwards_keep_fewer_activations():
    assert [most_kept(gpipe(stage, 4, 8)) for stage in range(4)] == [8, 8, 8, 8]
    assert [most_kept(one_forward_one_backward(stage, 4, 8)) for stage in range(4)] == [4, 3, 2, 1]


def test_schedules_that_wait_for_each_other_are_refused():
    with pytest.raises(ValueError, match="wait for each other"):
        timetable([[Action("backward", 0), Action("forward", 0)]])


@BOTH
@pytest.mark.parametrize(("stage", "micros"), [(2, 1), (-1, 1), (0, 0)])
def test_stage_and_micro_batches_have_to_be_there(schedule, stage, micros):
    with pytest.raises(ValueError, match=f"got {stage} and {micros}"):
        schedule(stage, 2, micros)


def test_memory_by_stage():
    assert [bytes_per_process(1, 4, stage) for stage in range(4)] == [16, 4 + 3, 2 + 3 + 0.5, 4]
    for stage, processes in ((4, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"got {stage} and {processes}"):
            bytes_per_process(1, processes, stage)


def test_gradients_have_to_be_there():
    with pytest.raises(ValueError, match="call backward"):
        average_gradients(nn.Linear(2, 2))
    assert torch.is_grad_enabled()
