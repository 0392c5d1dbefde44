"""dlbook.table: the same cells as text and as HTML."""

import pytest

from dlbook import table
from dlbook.table import show_table


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(table, "show", bundles.append)
    return bundles


def test_every_cell_is_in_both_forms(shown):
    show_table(["network", "size", "right"], [["a < b", "1", "22"], ["c", "333", "4"]])
    (bundle,) = shown
    assert bundle["text/plain"] == "network  size  right\na < b       1     22\nc         333      4"
    markup = bundle["text/html"]
    assert '<tr><th scope="row">a &lt; b</th><td>1</td><td>22</td></tr>' in markup
    assert markup.count("<tr>") == 3
    assert markup.count('scope="col"') == 3


def test_refuses_rows_that_do_not_fit(shown):
    with pytest.raises(ValueError, match="empty"):
        show_table(["network"], [])
    with pytest.raises(ValueError, match="has 1 columns, the head has 2"):
        show_table(["network", "size"], [["a", "1"], ["b"]])
    assert not shown
