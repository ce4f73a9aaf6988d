"""CPU seconds of starting: an empty Python, ``import virtualfs``, ``virtualfs --help``.

Each is a new process, run in turn; the medians of user plus system time are printed. They include
Python's own start, which is the reference.

Run as ``python benchmarks/startup.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

ROUNDS = 15
CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import virtualfs": [sys.executable, "-c", "import virtualfs"],
    "virtualfs --help": [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['virtualfs', '--help']; from virtualfs.cli import main; main()",
    ],
}


def cpu_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, command in CASES.items():
            times[name].append(cpu_seconds(command))
    for name, found in times.items():
        print(f"{name:18} {statistics.median(found):.3f} s CPU")


if __name__ == "__main__":
    main()
