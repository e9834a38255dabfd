"""Software bill of materials of the wheel in FOLDER, as CycloneDX JSON beside it: ``python .ci/sbom.py FOLDER``.

It lists classlens and what its metadata asks for without extras, in the versions of the environment that runs this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from extras import closure, make


def main(folder: Path) -> Path:
    (wheel,) = folder.glob("classlens-*.whl")
    out = folder / f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"
    with tempfile.TemporaryDirectory() as scratch:
        python = make(Path(scratch, "venv"), wheel, "")
        command = [
            sys.executable,
            "-m",
            "cyclonedx_py",
            "environment",
            "--output-reproducible",
            "--output-format",
            "JSON",
        ]
        subprocess.check_call([*command, "--output-file", str(out), str(python)])
    listed = {part["name"].lower() for part in json.loads(out.read_text(encoding="utf-8"))["components"]}
    missing = {
        name for name in closure(wheel, "") | {"classlens"} if name not in {each.replace("_", "-") for each in listed}
    }
    if missing:
        sys.exit(f"{out.name} lacks {', '.join(sorted(missing))}")
    return out


if __name__ == "__main__":
    print(main(Path(sys.argv[1]).resolve()))
