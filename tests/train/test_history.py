"""History keeps its columns equally long."""

import pytest

from dlbook.train.history import History


def test_epochs_are_appended_and_counted():
    history = History()
    assert history.epochs == 0
    assert str(history) == "no epoch yet"
    history.append(loss=2.0, val_loss=3.0)
    history.append(loss=1.0, val_loss=2.5)
    assert history == {"loss": [2.0, 1.0], "val_loss": [3.0, 2.5]}
    assert history.epochs == 2
    assert str(history) == "epoch 2: loss 1.0000, val_loss 2.5000"
    history.append(loss=0.5, val_loss=2.25)
    assert str(history) == "epoch 3: loss 0.5000, val_loss 2.2500"


def test_other_names_than_before_are_refused():
    history = History(loss=[1.0])
    with pytest.raises(ValueError, match=r"\['loss'\], this one \['loss', 'val_loss'\]"):
        history.append(loss=1.0, val_loss=2.0)
    assert history == {"loss": [1.0]}
