"""Overhead of `tfkd validate --target android` over the run on the device, first run included.

The device is tests/adb_device.py behind the real adb, which is connected before, as a phone is. The run is what `am
instrument` takes there, from its start to its end: loading the model, warm-up, latency, all outputs. All the rest
counts as overhead: Python and its imports, the data set, each adb call, pushes (to an empty device at first), fetching
the outputs, scores. No host target runs.

Goal: at most 3 s.

    python tools/bench/android_overhead.py --repeats 5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import adb_device

GOAL_S = 3.0


class Watched(adb_device.Phone):
    """A phone that measures how long its last run took."""

    run_s = 0.0

    def shell(self, command: str) -> subprocess.Popen[bytes]:
        start, process = time.perf_counter(), super().shell(command)
        if "instrument" in command:

            def wait() -> None:
                process.wait()
                self.run_s = time.perf_counter() - start

            threading.Thread(target=wait, daemon=True).start()
        return process


def main() -> None:
    """Converts a student, runs the command several times and prints one line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        os.environ |= {"ADB_SERVER_SOCKET": f"localfilesystem:{folder}/adb", "HOME": folder}
        model = f"{folder}/student.tflite"
        make = (
            "import sys, tfkd; data = tfkd.data.load('digits').train;"
            "tfkd.convert(tfkd.models.digits_student(data.input_shape, 10), sys.argv[1], calibration=data)"
        )
        subprocess.run([sys.executable, "-c", make, model], check=True, stderr=subprocess.DEVNULL)
        phone = Watched(f"{folder}/phone")
        adb_device.adb("connect", phone.serial)
        command = [sys.executable, "-m", "tfkd.cli", "validate", model, "--data", "digits", "--target", "android"]
        print(f"{'run':>3} {'whole s':>8} {'device s':>9} {'more s':>7}   load")
        try:
            more = []
            for repeat in range(1, repeats + 1):
                start = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True)
                whole = time.perf_counter() - start
                if done.returncode:
                    sys.exit(f"android_overhead: {done.stdout}{done.stderr}")
                more.append(whole - phone.run_s)
                line = f"{repeat:>3} {whole:8.2f} {phone.run_s:9.2f} {more[-1]:7.2f}   {os.getloadavg()[0]:.1f}"
                print(line, flush=True)
        finally:
            adb_device.adb("kill-server")
    print(f"at most {max(more):.2f} s more; goal <= {GOAL_S:g} s: {'holds' if max(more) <= GOAL_S else 'missed'}")


if __name__ == "__main__":
    main()
