"""The outputs that a chapter keeps belong to the code that is there now."""

import pytest

from tools.fingerprint import read, stale_reason
from tools.structure import all_chapters


@pytest.mark.parametrize("chapter", all_chapters(), ids=lambda chapter: chapter.path.stem)
def test_stored_outputs_are_fresh(chapter):
    reason = stale_reason(read(chapter.path))
    assert reason is None, f"{chapter.path.name} is stale ({reason}): make chapters ONLY={chapter.path.stem[:2]}"
