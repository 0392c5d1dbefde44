"""A table of results in all its forms: HTML where it can be shown, aligned text where not.

Chapter: chapters/03-convolutional-networks.ipynb
"""

from collections.abc import Sequence

from dlbook.markup import escape, show, style

__all__ = ["show_table"]

RULES = (
    ".dlbook.dlbook-table{padding:.4em .8em;overflow-x:auto}"
    ".dlbook-table table{border-collapse:collapse;width:100%;margin:0;color:inherit;font-variant-numeric:tabular-nums}"
    ".dlbook-table th,.dlbook-table td{text-align:right;vertical-align:top;padding:.35em 0 .35em .9em;color:inherit}"
    ".dlbook-table tr>:first-child{text-align:left;padding-left:0;white-space:nowrap}"
)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table whose first column names the rows.

    Args:
        head: Titles of the columns, with their units.
        rows: One text for each column, in every row.

    Raises:
        ValueError: If there are no rows, or a row has another number of columns than the head.

    Example:
        >>> show_table(["network", "parameters"], [["LeNet-5", "61,706"], ["ViT", "139,018"]])
        network  parameters
        LeNet-5      61,706
        ViT         139,018
    """
    if not rows:
        raise ValueError("rows is empty: nothing to show")
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"row {list(row)} has {len(row)} columns, the head has {len(head)}")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    plain = "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in [head, *rows]
    )
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    show({"text/plain": plain, "text/html": f'{style(RULES)}<div class="dlbook dlbook-table">{table}</div>'})
