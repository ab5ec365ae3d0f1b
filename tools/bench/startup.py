"""Compares the start-up time of tfkd with that of the bare interpreter: medians and differences of one run.

Goal: `import tfkd` and `tfkd --help` within 0.5 s of the bare interpreter.

    python tools/bench/startup.py --repeats 10
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL_S = 0.5
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import tfkd": [sys.executable, "-c", "import tfkd"],
    "tfkd --help": [str(Path(sys.executable).with_name("tfkd")), "--help"],
}


def main() -> None:
    """Runs the commands in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(-1, max(1, repeats)):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if repeat >= 0:  # the first fills the disk cache
                seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        extra = statistics.median(values) - bare
        verdict = "holds" if extra <= GOAL_S else "missed"
        print(f"{name:15} {bare + extra:.3f} s   {extra:+.3f} s   goal <= +{GOAL_S} s: {verdict}")


if __name__ == "__main__":
    main()
