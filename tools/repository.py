"""Keep the copies of the repository's address equal; it stands in pyproject.toml.

python -m tools.repository https://github.com/OWNER/NAME
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tools import ROOT
from tools.run_chapters import write_whole

FORM = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")
# The address itself, what Colab and raw files make of it, and the place of the published pages.
COPIES = r"((?:github\.com|githubusercontent\.com|research\.google\.com/github|mybinder\.org/v2/gh)/){old}(?![\w-])"


def address(root: Path = ROOT) -> str:
    """Return the repository's address."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def texts(root: Path = ROOT) -> dict[Path, str]:
    """Return the contents of all text files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    found = {}
    for name in filter(None, listed.split("\0")):
        try:
            found[root / name] = (root / name).read_bytes().decode("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # a picture, or a file removed and not yet committed
            continue
    return found


def owners(text: str, name: str) -> set[str]:
    """Return the owners under which a text knows the repository `name`."""
    return {found[1] for found in re.findall(COPIES.format(old=rf"([\w.-]+)/{re.escape(name)}"), text)}


def rewrite(new: str, root: Path = ROOT) -> list[Path]:
    """Write the new address in place of the old one in every file; return the files that changed.

    Raises:
        ValueError: when the new address is not one of GitHub, which Colab's button needs.
    """
    wanted = FORM.fullmatch(new.removesuffix("/").removesuffix(".git"))
    if not wanted:
        raise ValueError(f"{new!r} is not of the form https://github.com/OWNER/NAME")
    known = FORM.fullmatch(address(root))
    assert known, f"the address in pyproject.toml is not one of GitHub: {address(root)}"
    old, changed = "/".join(known.groups()), []
    for path, text in texts(root).items():
        after = re.sub(COPIES.format(old=re.escape(old)), rf"\g<1>{'/'.join(wanted.groups())}", text)
        after = after.replace(f"{known[1]}.github.io/{known[2]}", f"{wanted[1]}.github.io/{wanted[2]}")
        if after != text:
            write_whole(path, after)
            changed.append(path)
    return changed


def main(new: str) -> int:
    try:
        changed = rewrite(new)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files now say {address()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
