"""The statements that the book tests, and the cards that carry their verdicts.

The statements stand in ``dlbook/statements.yml``. A chapter calls `claim` once for each of its own. The card that it
shows holds the verdict as data too, so that `verdicts` reads it back from the stored notebook, and the page
``chapters/evidence.md`` is filled from what the chapters found.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml

from dlbook.markup import escape, show, style
from dlbook.scale import Run, current
from dlbook.statistics import Estimate, estimate, with_unit

__all__ = [
    "MIME",
    "SIGNS",
    "VERDICTS",
    "Estimate",
    "Section",
    "Statement",
    "UnexpectedVerdict",
    "Verdict",
    "card",
    "claim",
]
__all__ += ["element_id", "estimate", "numbers_line", "sections", "statements", "summary", "verdicts"]

MIME = "application/vnd.dlbook.claim+json"
Verdict = Literal["holds", "holds, with limits", "does not hold"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
SIGNS = {"holds": "✓", "holds, with limits": "◐", "does not hold": "✗"}
COLOURS = {"holds": "good", "holds, with limits": "mixed", "does not hold": "bad"}
RULES = (
    ".dlbook.dlbook-claim{padding:.7em 1em;border-left:5px solid var(--dl-tone)}"
    ".dlbook-claim p{margin:.25em 0;color:inherit}"
    ".dlbook-claim .dl-said{font-size:1.05em}"
    ".dlbook-claim .dl-verdict{color:var(--dl-tone);white-space:nowrap}"
    ".dlbook-claim .dl-head{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1em}"
    ".dlbook-claim .dl-head>:first-child,.dlbook-claim .dl-numbers{color:var(--dl-quiet)}"
    ".dlbook-claim .dl-numbers{font-size:.9em;font-variant-numeric:tabular-nums}"
    "@media print{.dlbook-claim{break-inside:avoid}}"
)
SUMMARY_RULES = (
    ".dlbook.dlbook-summary{padding:.4em .8em;overflow-x:auto}"
    ".dlbook-summary table{border-collapse:collapse;width:100%;margin:0;color:inherit}"
    ".dlbook-summary th,.dlbook-summary td{text-align:left;vertical-align:top;padding:.35em .7em .35em 0;color:inherit}"
    ".dlbook-summary td:nth-child(2){white-space:nowrap;font-weight:600}"
)


@dataclass(frozen=True)
class Section:
    """One section of the guide, which is one chapter of the book.

    Args:
        id: Its number, from 1.
        file: The chapter's file name without ending.
        title: Its heading.
    """

    id: int
    file: str
    title: str


@dataclass(frozen=True)
class Statement:
    """One statement of the guide.

    Args:
        id: Its number, such as "2.3".
        kind: "exact", "measured" or "cited"; ``statements.yml`` says what each asks for.
        claim: What is stated.
        evidence: What its chapter has to show.
        contest: Whether the guide says more here than can be kept.
    """

    id: str
    kind: Literal["exact", "measured", "cited"]
    claim: str
    evidence: str
    contest: bool = False

    @property
    def section(self) -> int:
        """The number of the section it belongs to."""
        return int(self.id.partition(".")[0])


class UnexpectedVerdict(Exception):
    """A statement came out otherwise than the chapter expects: the text around it can no longer be right."""


@cache
def _book() -> dict[str, Any]:
    return dict(yaml.safe_load(files("dlbook").joinpath("statements.yml").read_text(encoding="utf-8")))


def sections() -> list[Section]:
    """Return the guide's sections in order.

    Example:
        >>> sections()[1]
        Section(id=2, file='02-neural-network-fundamentals', title='Neural Network Fundamentals')
    """
    return [Section(s["id"], s["file"], s["title"]) for s in _book()["sections"]]


def statements() -> dict[str, Statement]:
    """Return all statements by number, in the guide's order.

    Example:
        >>> statements()["2.3"].claim
        'ReLU mitigates vanishing gradients'
    """
    return {entry["id"]: Statement(**entry) for section in _book()["sections"] for entry in section["statements"]}


def claim(
    id: str,
    *,
    holds: bool,
    because: str,
    limits: str = "",
    estimate: Estimate | None = None,
    unit: str = "",
    margin: float | None = None,
    expect: Verdict | None = None,
) -> None:
    """Show the card of one statement with its verdict.

    Args:
        id: The statement's number, such as "2.3".
        holds: Whether the statement came out true under the conditions that ``because`` names.
        because: The reason, in one or two sentences.
        limits: Where it stops being true; with it the verdict is at most "holds, with limits".
        estimate: The number that it rests on; required for a measured statement.
        unit: Of the estimate and the margin, such as "%" or "points".
        margin: What the estimate had to reach, chosen before it was measured; required for a measured statement.
        expect: The verdict that the chapter's text is written for; by default the best one that ``limits`` allows.

    Raises:
        ValueError: If the statement is unknown, ``because`` is empty, a measured statement has no estimate or
            margin, the margin is not finite, or ``expect`` is no verdict.
        TypeError: If ``holds`` is not a single boolean (Python's, numpy's or torch's).
        RuntimeError: If `dlbook.start` was not called: a verdict belongs to a scale.
        UnexpectedVerdict: At scales cpu and gpu, after the card is shown, if the verdict is not the expected one.

    Example:
        >>> from dlbook import start
        >>> run = start("smoke")
        dlbook ...
        >>> claim("2.1", holds=True, because="Two linear layers multiplied out are one, to the last bit.")
        Statement 2.1: A neuron is a weighted sum and a non-linearity; ...
        ✓ holds
        Because: Two linear layers multiplied out are one, to the last bit.
        Scale smoke
    """
    statement = _statement(id)
    run = current()
    if run is None:
        raise RuntimeError("call run = start(scale, seed) first: a verdict belongs to the scale it was reached at")
    best: Verdict = "holds, with limits" if limits.strip() else "holds"
    expect = expect or best
    _check(statement, because, estimate, margin, expect)
    verdict = best if _single_bool(holds) else "does not hold"
    payload = {
        "id": id,
        "verdict": verdict,
        "because": because.strip(),
        "limits": limits.strip(),
        "scale": run.scale,
        "number": estimate.mean if estimate else None,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "seeds": estimate.n if estimate else None,
        "confidence": estimate.confidence if estimate else None,
        "unit": unit,
        "margin": None if margin is None else float(margin),
    }
    _claimed[id] = (run, payload)
    show(card(payload))
    if verdict != expect and run.scale != "smoke":
        raise UnexpectedVerdict(f"statement {id}: the text expects {expect!r}, the run gave {verdict!r}: {because}")


_claimed: dict[str, tuple[Run, dict[str, Any]]] = {}  # the last verdict on each statement, and the run it is of


def summary() -> None:
    """Show one table of the verdicts that `claim` has reached since `start`, and what each rests on.

    Example:
        >>> from dlbook import start
        >>> run = start("smoke")
        dlbook ...
        >>> claim("2.1", holds=True, because="Two linear layers multiplied out are one, to the last bit.")
        Statement 2.1: ...
        >>> summary()
        2.1  ✓ holds  A neuron is a weighted sum and a non-linearity; ... — Two linear layers multiplied out ...
    """
    rows = []
    for id, statement in statements().items():
        made_in, payload = _claimed.get(id, (None, {}))
        if made_in is None or made_in is not current():
            continue
        verdict = f"{SIGNS[payload['verdict']]} {payload['verdict']}"
        rests_on = payload["because"] if payload["number"] is None else numbers_line(payload)
        rows.append((id, verdict, statement.claim, rests_on))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("No.", "Verdict", "Statement", "Rests on"))
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    markup = f'{style(SUMMARY_RULES)}<div class="dlbook dlbook-summary">{table}</div>'
    show({"text/plain": "\n".join(f"{a}  {b}  {c} — {d}" for a, b, c, d in rows), "text/html": markup})


def card(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a verdict in all its forms: plain text, HTML and the data themselves.

    Args:
        payload: What `claim` stored, as `verdicts` gives it back.

    Raises:
        ValueError: If the statement is unknown.
    """
    statement, verdict = _statement(payload["id"]), payload["verdict"]
    reasons = [(word, payload[word.lower()]) for word in ("Because", "Limits") if payload[word.lower()]]
    title, said, numbers = f"Statement {statement.id}", statement.claim, numbers_line(payload)

    plain = [f"{title}: {said}", f"{SIGNS[verdict]} {verdict}", *(f"{word}: {text}" for word, text in reasons), numbers]
    body = "".join(f"<p><strong>{word}:</strong> {escape(text)}</p>" for word, text in reasons)
    markup = (
        f'{style(RULES)}<div class="dlbook dlbook-claim" id="{element_id(statement.id)}" role="group"'
        f' aria-label="{title}: {verdict}" style="--dl-tone:var(--dl-{COLOURS[verdict]})">'
        f'<p class="dl-head"><span>{title}</span> <strong class="dl-verdict"><span aria-hidden="true">{SIGNS[verdict]}'
        f'</span> {verdict}</strong></p><p class="dl-said"><strong>{escape(said)}</strong></p>{body}'
        f'<p class="dl-numbers">{escape(numbers)}</p></div>'
    )
    return {"text/plain": "\n".join(plain), "text/html": markup, MIME: dict(payload)}


def numbers_line(payload: Mapping[str, Any]) -> str:
    """Return what a verdict rests on in one line: the number, its interval, the margin, the scale.

    Args:
        payload: What `claim` stored, as `verdicts` gives it back.

    Example:
        >>> numbers_line({"number": 5.25, "low": 4.5, "high": 6.0, "seeds": 5, "confidence": 0.95,
        ...               "unit": "points", "margin": 2.0, "scale": "cpu"})
        '5.2 points (95 % interval 4.5 to 6.0, 5 seeds) against a margin of 2 points, scale cpu'
    """
    if payload["number"] is None:
        return f"Scale {payload['scale']}"
    found = Estimate(*(payload[key] for key in ("number", "low", "high", "seeds", "confidence")))
    margin = payload["margin"]
    against = "" if margin is None else f" against a margin of {with_unit(f'{margin:.6g}', payload['unit'])}"
    return f"{found.text(payload['unit'])}{against}, scale {payload['scale']}"


def element_id(statement_id: str) -> str:
    """Return the HTML id of a statement's card, for links to it.

    Example:
        >>> element_id("2.3")
        'claim-2-3'
    """
    return "claim-" + statement_id.replace(".", "-")


def verdicts(notebook: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the verdicts back from a notebook's stored outputs.

    Args:
        notebook: The notebook's JSON, format 4.

    Raises:
        ValueError: If a statement has more than one verdict in it.

    Example:
        >>> verdicts({"cells": [{"cell_type": "markdown", "source": ""}]})
        {}
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            payload = output.get("data", {}).get(MIME)
            if payload is None:
                continue
            if payload["id"] in found:
                raise ValueError(f"statement {payload['id']} has more than one verdict in this notebook")
            found[payload["id"]] = dict(payload)
    return found


def _statement(id: str) -> Statement:
    known = statements()
    if id not in known:
        raise ValueError(f'unknown statement {id!r}: numbers are strings from "{min(known)}" to "{max(known)}"')
    return known[id]


def _check(
    statement: Statement, because: str, estimate: Estimate | None, margin: float | None, expect: Verdict
) -> None:
    if not because.strip():
        raise ValueError(f"statement {statement.id}: because= must say why the verdict is what it is")
    if statement.kind == "measured" and (estimate is None or margin is None):
        raise ValueError(f"statement {statement.id} is measured: it needs estimate= and margin=, set before measuring")
    if margin is not None and not math.isfinite(margin):
        raise ValueError(f"statement {statement.id}: the margin must be finite, got {margin}")
    if expect not in VERDICTS:
        raise ValueError(f"statement {statement.id}: expect must be one of {VERDICTS}, got {expect!r}")


def _single_bool(holds: object) -> bool:
    """Accept True and False of Python, numpy and torch, and nothing that merely counts as true."""
    if isinstance(holds, torch.Tensor):
        holds = holds.detach().cpu().numpy()
    array = np.asarray(holds)
    if array.dtype != np.bool_ or array.size != 1:
        raise TypeError(f"holds must be one boolean, got {holds!r}")
    return bool(array.item())
