"""Small chapters for the tests of the tools."""

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def code(source: str, *tags: str, **metadata) -> NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags), **metadata} if tags else metadata)


def notebook(*cells: NotebookNode | str) -> NotebookNode:
    """A notebook of the given cells; a text that starts with # is markdown, any other is code."""
    made = [
        (new_markdown_cell(cell) if cell.startswith("#") else code(cell)) if isinstance(cell, str) else cell
        for cell in cells
    ]
    return new_notebook(cells=made)
