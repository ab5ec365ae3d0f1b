"""Leaves a model in the app on a phone, with samples, the host's outputs and labels: it can then be picked by hand.

python tools/push_model.py student.tflite --data digits            # shown as "student"
python tools/push_model.py student.tflite --id student --remove
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import build_apk

from tfkd.targets.android import Android

STORE = "/data/local/tmp/tfkd"


def main() -> int:
    """Reads the options and pushes; 2 for a wrong option, 3 without a phone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", default="digits", help="where its samples come from: tfkd.data.load")
    parser.add_argument("--id", help="how the app shows it: a-z, 0-9 and -, by default the file's name")
    parser.add_argument("--serial", default="", help="of the phone, where several are connected")
    parser.add_argument("--remove", action="store_true", help="take it from the phone instead")
    options = parser.parse_args()
    try:
        name = options.id or re.sub("[^a-z0-9-]+", "-", options.model.stem.lower())[:64]
        if not re.fullmatch("[a-z0-9-]{1,64}", name) or name == "bundled":
            raise ValueError(f"--id must be 1 to 64 of a-z, 0-9 and -, and not bundled. Received: {name!r}.")
        if options.remove:
            Android(options.serial).phone().inside("rm", "-rf", f"files/models/{name}")
        else:
            push(options.model, options.data, name, options.serial)
    except ValueError as error:
        print(f"push_model: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"push_model: {error}", file=sys.stderr)
        return 3
    print(f"{name}: {'removed' if options.remove else 'open the app and pick it under Model'}")
    return 0


def push(model: Path, data: str, name: str, serial: str = "") -> None:
    """Copies the model's folder into the app; its description comes last, so that no half of it is ever shown.

    Raises:
        ValueError: the model or the data is wrong.
        RuntimeError: no phone, or the app is not on it.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        build_apk.bundle(model, data, Path(folder))
        device = Android(serial).phone()
        device.inside("rm", "-rf", f"files/models/{name}")
        device.inside("mkdir", "-p", f"files/models/{name}")
        device.shell("mkdir", "-p", STORE)
        for file in sorted(Path(folder).iterdir(), key=lambda path: path.name == "model.json"):
            device.adb("push", str(file), f"{STORE}/{name}.part")
            device.inside("cp", f"{STORE}/{name}.part", f"files/models/{name}/{file.name}")
        device.shell("rm", "-f", f"{STORE}/{name}.part")


if __name__ == "__main__":
    sys.exit(main())
