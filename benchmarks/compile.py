"""Compiling views of ten features: cold and again, by number of views.

Cold is a new process that has imported everything; again is the same request once more. Growth is
the cost per view at 100 views over that at 10. Views of one shape have the same types, keys and
rules under other names, and are compiled once; then every view has types of its own.

Run as ``python benchmarks/compile.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

ROUNDS = 3


def measure(views: int, *, alike: bool) -> None:
    import ibis  # noqa: F401 - imports are not what is measured

    from virtualfs.capabilities import Statistics
    from virtualfs.compiler.plan import FeaturePlan, Part, ResolvedFeature, ResolvedView
    from virtualfs.compiler.program import compile_training
    from virtualfs_providers.duckdb import CAPABILITIES

    names = [f"f{number}" for number in range(10)]

    def part(number: int) -> Part:
        columns = {"k": "int64", "at": "timestamp(6)", "made": "timestamp(6)"}
        for place, name in enumerate(names):
            columns[name] = "float64" if alike or number >> place & 1 else "int64"
        view = ResolvedView(
            name=f"view_{number}", fingerprint=str(number), warehouse="default",
            entities=("key",), join_keys={"k": "int64"},
            rows_sql=f"SELECT {', '.join(columns)} FROM rows_{number}", columns=columns,
            features=tuple(ResolvedFeature(name=n, sql=n, dtype=columns[n]) for n in names),
            event_timestamp="at", created_timestamp="made", ttl="1d",
        )  # fmt: skip
        return Part(view, ("k",), tuple((name, f"view_{number}__{name}") for name in names))

    parts = tuple(part(number) for number in range(views))
    plan = FeaturePlan(parts, tuple(output for p in parts for _, output in p.outputs))
    known = {p.view.fingerprint: Statistics() for p in parts}

    def compile_it() -> float:
        started = time.perf_counter()
        program = compile_training(
            plan, {"k": "int64"}, CAPABILITIES, known, spine_sql=None, spine_columns=("k",)
        )
        assert len(program.text()) > 1000 * views
        return time.perf_counter() - started

    print(json.dumps([compile_it(), compile_it()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", type=int)
    parser.add_argument("--alike", action="store_true")
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, alike=given.alike)
        return
    for alike in (True, False):
        print("views of one shape" if alike else "views of as many shapes")
        cold = {}
        for views in (1, 10, 100):
            runs = []
            for _ in range(ROUNDS):
                command = [sys.executable, "-W", "ignore", __file__, "--measure", str(views)]
                command += ["--alike"] * alike
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                runs.append(json.loads(out.splitlines()[-1]))
            first, again = (statistics.median(times) for times in zip(*runs, strict=True))
            cold[views] = first
            print(f"{views:3} views: cold {first:.2f} s, again {again * 1e3:.1f} ms", flush=True)
        print(f"growth per view, 100 views over 10: {cold[100] / 10 / cold[10]:.2f}")


if __name__ == "__main__":
    main()
