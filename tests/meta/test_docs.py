"""What the documents say is what the code does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_reference_is_that_of_the_code() -> None:
    script = str(ROOT / "scripts/settings_reference.py")
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, f"run `make docs` and commit docs/settings.md\n{done.stderr!r}"


def test_every_make_target_says_what_it_does() -> None:
    shown = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    phony = next(
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY")
    )
    missing = [name for name in phony.split()[1:] if f"  {name} " not in shown.stdout]
    assert missing == []
