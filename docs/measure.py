"""Runs the commands named in performance.md and puts what they print into the page.

    python docs/measure.py [PART OF A COMMAND]

It takes some minutes and a quiet machine.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("performance.md")
PLACE = re.compile(r"(<!-- begin: (?P<command>.*?) -->\n).*?(<!-- end -->)", re.S)


def measured(place: re.Match[str]) -> str:
    """The place with what its command prints now."""
    command = place["command"]
    if not all(part in command for part in sys.argv[1:]):
        return place[0]
    print(command, flush=True)
    arguments = shlex.split(command)
    assert arguments[0] == "python"
    ran = subprocess.run(  # noqa: S603  - commands of our own page
        [sys.executable, *arguments[1:]], cwd=PAGE.parents[1], stdout=subprocess.PIPE, text=True, check=True
    )
    text = "\n".join(line.rstrip() for line in ran.stdout.strip().splitlines())
    if "|---" not in text:
        text = f"```text\n{text}\n```"
    return f"{place[1]}\n{text}\n\n{place[3]}"


PAGE.write_text(PLACE.sub(measured, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
