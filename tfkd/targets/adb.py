"""A device that the real adb reaches: found, kept awake, sent files by their hash."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfkd.errors import DeviceError, InputError, ToolMissingError

STORE = "/data/local/tmp/tfkd"
STEP_S = 60.0

# What `adb devices` says of a device that does not answer, and what its owner does then.
_STATES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug and plug it in again, or run `adb reconnect`",
    "no permissions": "install Debian's android-sdk-platform-tools-common, which holds the udev rules",
    "recovery": "let it start normally",
    "sideload": "let it start normally",
}


class Device:
    """One device, by its serial; every word that its shell sees is quoted.

    Args:
        where: the target, for messages.
        serial: as `connected` gives it.
    """

    def __init__(self, where: str, serial: str) -> None:
        self.where, self.serial = where, serial

    def adb(self, *arguments: str) -> str:
        """Runs an adb command on it; what that printed."""
        return read(["-s", self.serial, *arguments], f"{self.where}: adb {arguments[0]}").decode(errors="replace")

    def shell(self, *words: str) -> str:
        """Runs a command in its shell; what that printed."""
        return self.adb("shell", shlex.join(words))

    def store(self, contents: Sequence[bytes]) -> list[str]:
        """Where the contents lie, by their SHA-256; what it has is not sent, what a week did not use is gone."""
        names = [hashlib.sha256(content).hexdigest() for content in contents]
        listing = f"mkdir -p {STORE} && find {STORE} -type f -mtime +7 -exec rm -f {{}} + ; ls {STORE}"
        have = set(self.shell("sh", "-c", listing).split())
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            for name, content in zip(names, contents, strict=True):
                if name not in have:
                    local = Path(folder, name)
                    local.write_bytes(content)
                    self.adb("push", str(local), f"{STORE}/{name}.part")
                    self.shell("mv", f"{STORE}/{name}.part", f"{STORE}/{name}")
        self.shell("touch", *(f"{STORE}/{name}" for name in names))
        return [f"{STORE}/{name}" for name in names]


def check(kind: str, serial: str) -> None:
    """Looks for adb, and at a serial.

    Raises:
        ValueError: the serial is none that `adb devices` shows.
        RuntimeError: adb is not installed.
    """
    if not re.fullmatch(r"[\w.:-]*", serial) or serial.startswith("-"):
        raise InputError(f"{kind}: serial must be one that `adb devices` shows. Received: {serial!r}.")
    if shutil.which("adb") is None:
        raise ToolMissingError(f"{kind}: needs adb. Received: none on PATH. Install it: sudo apt-get install adb")


def connected(where: str, serial: str) -> str:
    """The serial of the device to use: the given one, or the only one that is connected.

    Raises:
        RuntimeError: none, several, or one that does not answer; the message says what to do.
    """
    lines = read(["devices"], f"{where}: adb devices").decode(errors="replace").splitlines()[1:]
    found = dict(line.split("\t", 1) for line in lines if "\t" in line)
    if serial:
        found = {one: state for one, state in found.items() if one == serial}
    if not found:
        raise DeviceError(
            f"{where}: needs a connected phone. Received: none. Plug it in by USB, turn on USB debugging in "
            "its developer options, and allow this computer; `adb devices` must show it."
        )
    if len(found) > 1:
        raise DeviceError(
            f"{where}: needs one phone. Received: {', '.join(sorted(found))}. Write android:SERIAL, or give --serial."
        )
    ((one, state),) = found.items()
    if state != "device":
        remedy = next((what for sign, what in _STATES.items() if state.startswith(sign)), "look at its screen")
        raise DeviceError(f"{where}: {one} must be ready. Received: {state}. To mend that, {remedy}.")
    return one


@contextlib.contextmanager
def awake(device: Device) -> Iterator[None]:
    """Keeps the device awake while it works; its setting comes back whatever happens."""
    name = ("global", "stay_on_while_plugged_in")
    before = device.shell("settings", "get", *name).strip()
    try:
        device.shell("svc", "power", "stayon", "true")
        device.shell("input", "keyevent", "KEYCODE_WAKEUP")
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # the cable is out: the first error says more
            if before.isdigit():
                device.shell("settings", "put", *name, before)
            else:  # it was never set
                device.shell("settings", "delete", *name)


def read(arguments: Sequence[str], what: str, timeout_s: float | None = None) -> bytes:
    """What an adb command printed.

    Raises:
        RuntimeError: it failed or did not answer in time.
    """
    timeout_s = timeout_s or STEP_S
    try:
        done = subprocess.run(["adb", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{what}: must answer within {timeout_s:g} s. Received: nothing. Unplug the phone and plug it in again."
        ) from None
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()[-800:]
        raise DeviceError(f"{what}: must succeed. Received: {said or 'nothing'} (exit status {done.returncode}).")
    return done.stdout
