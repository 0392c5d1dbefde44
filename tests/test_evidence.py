"""dlbook.evidence: the statements, intervals, verdict cards, and reading verdicts back."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from scipy import stats

from dlbook import evidence, scale
from dlbook.evidence import (
    MIME,
    VERDICTS,
    Estimate,
    UnexpectedVerdict,
    card,
    claim,
    element_id,
    estimate,
    numbers_line,
    sections,
    statements,
    summary,
    verdicts,
)
from dlbook.scale import Run, start
from dlbook.statistics import rounded

GAIN = Estimate(mean=5.25, low=4.5, high=6.0, n=3)


@pytest.fixture
def shown(monkeypatch):
    """The bundles that were shown, at scale cpu."""
    bundles = []
    monkeypatch.setattr(evidence, "show", bundles.append)
    monkeypatch.setattr(scale, "_current", Run("cpu", 0, torch.device("cpu")))
    return bundles


def notebook(*outputs):
    cells = [{"cell_type": "markdown", "source": "prose"}]
    cells += [{"cell_type": "code", "outputs": [{"output_type": "display_data", "data": data}]} for data in outputs]
    return {"cells": cells, "nbformat": 4}


# ---- the statements


def test_statements_are_numbered_without_gaps_and_in_order():
    by_section = {
        k: [s.id for s in group] for k, group in itertools.groupby(statements().values(), lambda s: s.section)
    }
    assert list(by_section) == [section.id for section in sections()] == list(range(1, 10))
    for number, ids in by_section.items():
        assert ids == [f"{number}.{k}" for k in range(1, len(ids) + 1)]


def test_no_statement_is_listed_twice():
    listed = [entry["id"] for section in evidence._book()["sections"] for entry in section["statements"]]
    assert len(listed) == len(statements())


def test_statements_are_complete():
    for key, statement in statements().items():
        assert key == statement.id
        assert statement.kind in ("exact", "measured", "cited")
        assert statement.claim.strip() == statement.claim != ""
        assert statement.evidence.strip() == statement.evidence != ""


def test_section_files_carry_their_number():
    for section in sections():
        assert re.fullmatch(rf"0{section.id}-[a-z-]+", section.file)
        assert section.title


# ---- intervals


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_estimate_is_students_interval(kind, confidence):
    values = [0.25, 0.5, 0.375, 1.0, 0.125]
    found = estimate(kind(values), confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-9)
    assert (found.n, found.confidence) == (5, confidence)


def test_estimate_of_equal_values_has_no_width():
    assert estimate([2.0, 2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf"), 2.0]])
def test_estimate_needs_two_finite_numbers(values):
    with pytest.raises(ValueError, match="at least two finite numbers, got"):
        estimate(values)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_estimate_refuses_a_confidence_outside_0_to_1(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1.0, 2.0], confidence)


@pytest.mark.parametrize(
    ("mean", "low", "high", "n"),
    [(float("nan"), 0, 1, 3), (0.5, float("-inf"), 1, 3), (2, 0, 1, 3), (-1, 0, 1, 3), (0.5, 0, 1, 0)],
)
def test_an_impossible_estimate_is_refused(mean, low, high, n):
    with pytest.raises(ValueError, match="estimate"):
        Estimate(mean, low, high, n)


@pytest.mark.parametrize(
    ("numbers", "width", "expected"),
    [
        ([0.94117, 0.9391, 0.94333], 0.0042, ["0.9412", "0.9391", "0.9433"]),
        ([93.5, 92.94, 94.06], 1.12, ["93.5", "92.9", "94.1"]),
        ([1234.5, 1100.2, 1368.8], 268.6, ["1234", "1100", "1369"]),
        ([-0.5, -30.2, 29.2], 59.4, ["-0", "-30", "29"]),
        ([2.5, 2.5, 2.5], 0.0, ["2.5", "2.5", "2.5"]),
        ([0.0, 0.0, 0.0], 0.0, ["0", "0", "0"]),
        ([3.2e-16, 3.1e-16, 3.3e-16], 2e-17, ["3.20e-16", "3.10e-16", "3.30e-16"]),
        ([4.21e9, 4.0e9, 4.42e9], 4.2e8, ["4.21e+09", "4.00e+09", "4.42e+09"]),
    ],
)
def test_numbers_show_two_digits_of_their_uncertainty(numbers, width, expected):
    assert rounded(numbers, width) == expected


# ---- verdicts


@pytest.mark.parametrize(
    ("holds", "limits", "verdict"),
    [
        (True, "", "holds"),
        (True, " \n", "holds"),
        (True, "not for deep nets", "holds, with limits"),
        (False, "", "does not hold"),
        (False, "not for deep nets", "does not hold"),
    ],
)
def test_verdict(shown, holds, limits, verdict):
    claim("2.1", holds=holds, because="so it is", limits=limits, expect=verdict)
    assert shown[0][MIME]["verdict"] == verdict


@pytest.mark.parametrize("size", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("holds", "limits", "expect"),
    [
        (False, "", None),
        (False, "some", None),
        (True, "", "does not hold"),
        (True, "", "holds, with limits"),
        (True, "some", "holds"),
    ],
)
def test_an_unexpected_verdict_stops_the_run_after_the_card(shown, monkeypatch, size, holds, limits, expect):
    monkeypatch.setattr(scale, "_current", Run(size, 0, torch.device("cpu")))
    with pytest.raises(UnexpectedVerdict, match=r"statement 2\.1: the text expects .* the run gave"):
        claim("2.1", holds=holds, because="so it is", limits=limits, expect=expect)
    assert len(shown) == 1


def test_at_smoke_scale_an_unexpected_verdict_is_only_shown(shown, monkeypatch):
    monkeypatch.setattr(scale, "_current", Run("smoke", 0, torch.device("cpu")))
    claim("2.1", holds=False, because="too few steps")
    assert shown[0][MIME]["verdict"] == "does not hold"
    assert shown[0][MIME]["scale"] == "smoke"


@pytest.mark.parametrize("holds", [np.True_, np.array([True]), torch.tensor(True), torch.tensor([[True]])])
def test_booleans_of_numpy_and_torch_are_taken(shown, holds):
    claim("2.1", holds=holds, because="so it is")
    claim("2.1", holds=~holds, because="so it is", expect="does not hold")
    assert [bundle[MIME]["verdict"] for bundle in shown] == ["holds", "does not hold"]


@pytest.mark.parametrize(
    "holds", [1, "False", None, 0.7, [], np.array([True, True]), torch.tensor(1), torch.ones(2) > 0]
)
def test_what_only_counts_as_true_is_refused(shown, holds):
    with pytest.raises(TypeError, match="holds must be one boolean"):
        claim("2.1", holds=holds, because="so it is")
    assert shown == []


@pytest.mark.parametrize("number", ["2.99", "2", "", 2.3, "2.3 "])
def test_an_unknown_statement_is_refused(shown, number):
    with pytest.raises(ValueError, match=r'unknown statement .* from "1\.1" to "9\.1"'):
        claim(number, holds=True, because="so it is")


@pytest.mark.parametrize(
    ("number", "wrong", "message"),
    [
        ("2.1", {"because": " \n"}, "because= must say why"),
        ("2.3", {}, "needs estimate= and margin="),
        ("2.3", {"estimate": GAIN}, "needs estimate= and margin="),
        ("2.3", {"margin": 2.0}, "needs estimate= and margin="),
        ("2.3", {"estimate": GAIN, "margin": float("nan")}, "margin must be finite"),
        ("2.1", {"expect": "true"}, "expect must be one of"),
    ],
)
def test_a_claim_without_its_grounds_is_refused(shown, number, wrong, message):
    with pytest.raises(ValueError, match=f"statement {number}.*{message}"):
        claim(number, **({"holds": True, "because": "so it is"} | wrong))
    assert shown == []


def test_a_verdict_needs_a_scale(shown, monkeypatch):
    monkeypatch.setattr(scale, "_current", None)
    with pytest.raises(RuntimeError, match=r"^call run = start\(scale, seed\) first"):
        claim("2.1", holds=True, because="so it is")


# ---- the card


def test_the_payload_is_json_with_every_field(shown):
    found = estimate(torch.tensor([5.0, 4.5, 6.25]))
    claim("2.3", holds=True, because=" five ", limits=" at depth 50 ", estimate=found, unit="points", margin=2)
    payload = shown[0][MIME]
    assert json.loads(json.dumps(payload)) == payload
    assert payload == {
        "id": "2.3",
        "verdict": "holds, with limits",
        "because": "five",
        "limits": "at depth 50",
        "scale": "cpu",
        "number": found.mean,
        "low": found.low,
        "high": found.high,
        "seeds": 3,
        "confidence": 0.95,
        "unit": "points",
        "margin": 2.0,
    }


def test_the_card_says_everything_in_plain_text(shown):
    claim("2.3", holds=True, because="it grew", limits="at depth 50", estimate=GAIN, unit="points", margin=2)
    assert shown[0]["text/plain"].splitlines() == [
        "Statement 2.3: ReLU mitigates vanishing gradients",
        "◐ holds, with limits",
        "Because: it grew",
        "Limits: at depth 50",
        "5.2 points (95 % interval 4.5 to 6.0, 3 seeds) against a margin of 2 points, scale cpu",
    ]


def test_the_card_says_the_same_in_html(shown):
    claim("2.3", holds=True, because="it grew", limits="at depth 50", estimate=GAIN, unit="points", margin=2)
    page = shown[0]["text/html"]
    assert 'id="claim-2-3"' in page
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page)
    title, *others = shown[0]["text/plain"].splitlines()
    number, _, said = title.partition(": ")
    assert " ".join(text.split()) == " ".join([number, others[0], said, *others[1:]])
    assert evidence.RULES in page


def test_text_is_escaped_in_html_and_nowhere_else(shown):
    claim("2.1", holds=True, because='1 < 2 & "so" <script>alert(1)</script>', limits="<i>")
    assert "<script>" not in shown[0]["text/html"]
    assert "<i>" not in shown[0]["text/html"]
    assert "1 &lt; 2 &amp; &quot;so&quot; &lt;script&gt;" in shown[0]["text/html"]
    assert '1 < 2 & "so" <script>' in shown[0]["text/plain"]
    assert '1 < 2 & "so" <script>' in shown[0][MIME]["because"]


def test_the_unit_is_escaped_too(shown):
    claim("2.3", holds=True, because="so", estimate=GAIN, unit="<u>", margin=2)
    assert "<u>" not in shown[0]["text/html"]


def test_the_statement_is_escaped_too(shown, monkeypatch):
    odd = evidence.Statement("2.1", "exact", claim="a < b <i>", evidence="none")
    monkeypatch.setattr(evidence, "statements", lambda: {"2.1": odd})
    claim("2.1", holds=True, because="so")
    assert "a &lt; b &lt;i&gt;" in shown[0]["text/html"]


def test_each_verdict_has_a_sign_and_a_colour_of_its_own(shown):
    for verdict, (holds, limits) in zip(VERDICTS, [(True, ""), (True, "some"), (False, "")], strict=True):
        claim("2.1", holds=holds, because="so", limits=limits, expect=verdict)
    signs = [bundle["text/plain"].splitlines()[1].partition(" ") for bundle in shown]
    assert tuple(words for _, _, words in signs) == VERDICTS
    assert len({sign for sign, _, _ in signs}) == 3
    assert len({re.search(r"--dl-tone:var\(--dl-(\w+)\)", bundle["text/html"])[1] for bundle in shown}) == 3


def test_the_card_holds_nothing_where_nothing_was_given(shown):
    claim("2.1", holds=True, because="so")
    empty = dict.fromkeys(("number", "low", "high", "seeds", "confidence", "margin"))
    assert shown[0][MIME] == empty | {
        "id": "2.1",
        "verdict": "holds",
        "because": "so",
        "limits": "",
        "scale": "cpu",
        "unit": "",
    }
    assert "Limits" not in shown[0]["text/plain"] + shown[0]["text/html"]


def test_numbers_without_an_estimate_or_a_margin(shown):
    claim("2.1", holds=True, because="so")
    claim("2.1", holds=True, because="so", estimate=GAIN)
    assert numbers_line(shown[0][MIME]) == "Scale cpu"
    assert numbers_line(shown[1][MIME]) == "5.2 (95 % interval 4.5 to 6.0, 3 seeds), scale cpu"


def test_element_ids_are_unique():
    assert len({element_id(number) for number in statements()}) == len(statements())


# ---- reading back


def test_verdicts_reads_what_claim_stored(shown):
    claim("2.1", holds=True, because="so")
    claim("2.3", holds=True, because="so", estimate=GAIN, margin=2)
    stored = json.loads(json.dumps(notebook(shown[0], {"text/plain": "other"}, shown[1])))
    found = verdicts(stored)
    assert list(found) == ["2.1", "2.3"]
    assert found["2.3"] == shown[1][MIME]
    assert card(found["2.3"]) == shown[1]


def test_verdicts_ignores_streams_and_errors():
    stream = {"cell_type": "code", "outputs": [{"output_type": "stream", "text": "x"}, {"output_type": "error"}]}
    assert verdicts({"cells": [stream, {"cell_type": "raw"}]}) == {}


def test_verdicts_finds_a_card_behind_other_outputs(shown):
    claim("2.1", holds=True, because="so")
    outputs = [{"output_type": "stream", "text": "x"}, {"output_type": "display_data", "data": shown[0]}]
    assert list(verdicts({"cells": [{"cell_type": "code", "outputs": outputs}]})) == ["2.1"]


def test_verdicts_refuses_a_repeated_statement(shown):
    claim("2.1", holds=True, because="so")
    with pytest.raises(ValueError, match=r"statement 2\.1 has more than one verdict"):
        verdicts(notebook(shown[0], shown[0]))


def test_summary_lists_what_was_claimed_in_order_since_start(capsys):
    start("smoke")
    claim("2.2", holds=True, because="of an earlier run")
    start("smoke")
    claim("2.7", holds=False, because="a")
    claim("2.1", holds=True, because="b", limits="<c>")
    capsys.readouterr()
    summary()
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("2.1  ◐ holds, with limits")
    assert second.startswith("2.7  ✗ does not hold")


def test_the_summary_says_what_each_verdict_rests_on(shown, monkeypatch):
    monkeypatch.setattr(evidence, "_claimed", {})
    claim("2.1", holds=True, because="a < b")
    claim("2.3", holds=True, because="so", estimate=GAIN, margin=2)
    summary()
    rows = [
        ("2.1", "✓ holds", statements()["2.1"].claim, "a < b"),
        ("2.3", "✓ holds", statements()["2.3"].claim, numbers_line(shown[1][MIME])),
    ]
    assert shown[2]["text/plain"] == "\n".join(f"{a}  {b}  {c} — {d}" for a, b, c, d in rows)
    table = ElementTree.fromstring(re.search(r"<table>.*</table>", shown[2]["text/html"])[0])
    head, *body = [tuple(cell.text for cell in row) for row in table.iter("tr")]
    assert head == ("No.", "Verdict", "Statement", "Rests on")
    assert body == rows
    assert "".join(table.itertext()) == "".join("".join(row) for row in (head, *body))
    assert evidence.SUMMARY_RULES in shown[2]["text/html"]
    assert {cell.get("scope") for cell in table.iter("th")} == {"col"}
    assert '<div class="dlbook dlbook-summary"><table>' in shown[2]["text/html"]


def test_a_summary_of_nothing_is_empty(shown, monkeypatch):
    monkeypatch.setattr(evidence, "_claimed", {})
    summary()
    assert shown[0]["text/plain"] == ""
