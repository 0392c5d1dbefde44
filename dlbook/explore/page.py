"""The form of an explorer that needs no kernel: figures drawn beforehand, controls, and a few lines of script.

It asks nothing of its surroundings: no library, no request, no id. So it works in the built book, in JupyterLab and
Colab, which put it into a page that is already there, and when the same explorer stands on a page twice. Without
scripts the first figure stands alone, with a sentence that says so.

Chapter: all.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

Value = float | int | str

_STYLE = """
.dl-explorer{margin:1em 0;color:inherit}
.dl-controls{display:flex;flex-wrap:wrap;gap:.4em 1.6em;margin-bottom:.5em}
.dl-controls[hidden]{display:none}
.dl-controls label{display:flex;flex-wrap:wrap;align-items:center;gap:.2em .6em;min-height:2em;color:inherit}
.dl-controls input{accent-color:currentColor;width:12em;max-width:60vw;margin:0;cursor:pointer}
.dl-controls select{font:inherit;color:inherit;background:transparent;border:1px solid currentColor;border-radius:4px;
padding:.15em .4em;cursor:pointer}
.dl-controls option{color:#000;background:#fff}
.dl-value{min-width:3.5em;font-variant-numeric:tabular-nums}
.dl-frame{display:block;max-width:100%;height:auto;background-origin:content-box;background-repeat:no-repeat;
background-size:100% 100%;print-color-adjust:exact}
"""

# A frame may hold only what differs from another, which then lies behind it as background.
_SCRIPT = """
document.querySelectorAll('[data-dl-explorer="$key"]').forEach(function(root){
if(root.dataset.ready)return;root.dataset.ready="1";
var frames=JSON.parse(root.querySelector('script[type="application/json"]').textContent),
image=root.querySelector("img"),inputs=[].slice.call(root.querySelectorAll("input,select"));
function show(){var k=0;inputs.forEach(function(input){var i=+input.value;k=k*input.dataset.count+i;
if(input.type==="range"){var text=JSON.parse(input.dataset.texts)[i];
input.nextElementSibling.textContent=text;input.setAttribute("aria-valuetext",text)}});
var frame=frames[k];image.decoding="sync";
image.style.backgroundImage='url("'+frames[frame.over].src+'")';image.src=frame.src;image.alt=frame.alt}
inputs.forEach(function(input){input.addEventListener("input",show)});
root.querySelector(".dl-controls").hidden=false;show()});
"""

_PAGE = Template(
    '<div class="dl-explorer" data-dl-explorer="$key" role="group" aria-label="$label"><style>$style</style>'
    '<div class="dl-controls" hidden>$controls</div>'
    '<img class="dl-frame" src="$src" alt="$alt" width="$width" height="$height" decoding="async">'
    "<noscript><p>The controls of this figure need JavaScript; this is its first state.</p></noscript>"
    '<script type="application/json">$frames</script><script>$script</script></div>'
)


@dataclass(frozen=True)
class Frame:
    """One figure of an explorer.

    Args:
        png: Its PNG file, whole or with what differs from another frame.
        alt: What it shows, in words.
        over: The number of that other frame, or its own.
    """

    png: bytes
    alt: str
    over: int


def page(
    frames: Sequence[Frame], controls: Mapping[str, Sequence[Value]], start: Mapping[str, Value], size: tuple[int, int]
) -> str:
    """The HTML of an explorer.

    Args:
        frames: One for each combination of values, the last control running fastest.
        controls: Name -> its values.
        start: The values shown first.
        size: Width and height at which the figures are shown, in CSS pixels.
    """
    first = 0
    for name, values in controls.items():
        first = first * len(values) + list(values).index(start[name])
    stored = [{"src": _source(frame.png), "alt": frame.alt, "over": frame.over} for frame in frames]
    data = json.dumps(stored, ensure_ascii=False).replace("<", "\\u003c")  # a label may not end the script element
    inputs = "".join(_control(name, values, start[name]) for name, values in controls.items())
    # a key from the contents: two runs write the same bytes
    key = hashlib.sha256((inputs + data).encode()).hexdigest()[:12]
    return _PAGE.substitute(
        key=key,
        label=html.escape("explorer: " + ", ".join(spoken(name) for name in controls)),
        style=_STYLE.strip(),
        controls=inputs,
        src=_source(frames[first].png),
        alt=html.escape(frames[first].alt),
        width=size[0],
        height=size[1],
        frames=data,
        script=Template(_SCRIPT.strip()).substitute(key=key),
    )


def spoken(name: str) -> str:
    """A control's name as it is shown.

    Example:
        >>> spoken("learning_rate")
        'learning rate'
    """
    return name.replace("_", " ")


def written(value: Value) -> str:
    """A control's value as it is shown.

    Example:
        >>> written(0.25), written("ReLU")
        ('0.25', 'ReLU')
    """
    return value if isinstance(value, str) else f"{value:g}"


def _control(name: str, values: Sequence[Value], start: Value) -> str:
    """A slider for numbers, a drop-down list for texts."""
    texts, at = [written(value) for value in values], list(values).index(start)
    label = html.escape(spoken(name))
    if isinstance(values[0], str):
        options = "".join(
            f'<option value="{number}"{" selected" if number == at else ""}>{html.escape(text)}</option>'
            for number, text in enumerate(texts)
        )
        return f'<label>{label} <select autocomplete="off" data-count="{len(values)}">{options}</select></label>'
    shown = html.escape(texts[at])
    return (
        f'<label>{label} <input type="range" min="0" max="{len(values) - 1}" step="1" value="{at}" autocomplete="off"'
        f' data-count="{len(values)}" data-texts="{html.escape(json.dumps(texts))}" aria-label="{label}"'
        f' aria-valuetext="{shown}"><span class="dl-value" aria-hidden="true">{shown}</span></label>'
    )


def _source(png: bytes) -> str:
    """A PNG file as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
