"""Copies a model with samples, the host's outputs and labels to the app on a phone, where it can then be chosen.

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

from tfkd.errors import DeviceError, InputError, ToolMissingError
from tfkd.targets.android import Android

STORE = "/data/local/tmp/tfkd"


def main() -> int:
    """Parses the options and copies or removes the model.

    Returns:
        Exit status: 0; 2 for invalid input; 3 for a missing phone, app or tool.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", default="digits", help="data of the samples: a name or path for tfkd.data.load")
    parser.add_argument("--id", help="name in the app: a-z, 0-9 and -; by default from the file's name")
    parser.add_argument("--serial", default="", help="serial number of the phone, if several are connected")
    parser.add_argument("--remove", action="store_true", help="remove the model from the phone")
    options = parser.parse_args()
    try:
        name = options.id or re.sub("[^a-z0-9-]+", "-", options.model.stem.lower())[:64]
        if not re.fullmatch("[a-z0-9-]{1,64}", name) or name == "bundled":
            raise InputError(f"--id must be 1 to 64 of the characters a-z, 0-9, - and not 'bundled', got {name!r}.")
        if options.remove:
            Android(options.serial).phone().inside("rm", "-rf", f"files/models/{name}")
        else:
            push(options.model, options.data, name, options.serial)
    except InputError as error:
        print(f"push_model: {error}", file=sys.stderr)
        return 2
    except (ToolMissingError, DeviceError) as error:
        print(f"push_model: {error}", file=sys.stderr)
        return 3
    print(f"{name}: {'removed' if options.remove else 'choose it under Model in the app'}")
    return 0


def push(model: Path, data: str, name: str, serial: str = "") -> None:
    """Copies a model's folder to the app. The app lists a model by its model.json, which is copied last.

    Raises:
        InputError: The model or the data is not valid.
        ToolMissingError: adb is not installed.
        DeviceError: There is no phone, or it lacks the app.
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
