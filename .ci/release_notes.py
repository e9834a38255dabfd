"""The changelog of a version, for its release: ``python .ci/release_notes.py TAG FOLDER`` prints it.

Refuses a tag that the changelog, the citation or the wheel in FOLDER does not agree with.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes(changelog: str, version: str) -> str:
    """The section of a version, without its heading; raises ValueError for one that is missing, undated or empty."""
    sections = re.split(r"^## \[(.+?)\](?: - (.*))?$", changelog, flags=re.MULTILINE)[1:]
    for name, date, text in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        if name == version:
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", date or ""):
                raise ValueError(f"CHANGELOG.md gives {date!r} as the date of {version}: write it as YYYY-MM-DD")
            if not text.strip():
                raise ValueError(f"CHANGELOG.md says nothing about {version}")
            return text.strip()
    raise ValueError(f"CHANGELOG.md has no section [{version}]: name the section of this release so")


def check(version: str, citation: str, files: list[str]) -> None:
    """Raises ValueError for a citation or files of another version."""
    if f"\nversion: {version}\n" not in citation:
        raise ValueError(f"CITATION.cff names another version than {version}: set version and date-released")
    for start in (f"classlens-{version}-", f"classlens-{version}.tar.gz"):
        if not any(file.startswith(start) for file in files):
            raise ValueError(f"the folder has no {start}*: build from the commit of the tag v{version}")


if __name__ == "__main__":
    version = sys.argv[1].removeprefix("v")
    try:
        text = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
        files = [path.name for path in Path(sys.argv[2]).iterdir()]
        check(version, (ROOT / "CITATION.cff").read_text(encoding="utf-8"), files)
    except ValueError as error:
        sys.exit(str(error))
    print(text)
