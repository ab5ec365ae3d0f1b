"""Android devices over adb: finding them, running commands, storing files by their hash."""

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

# States that `adb devices` reports for devices that cannot be used, and what to do about them.
_STATES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug and plug it in again, or run `adb reconnect`",
    "no permissions": "install Debian's android-sdk-platform-tools-common, which holds the udev rules",
    "recovery": "let it start normally",
    "sideload": "let it start normally",
}


class Device:
    """A device by its serial number. Each argument of a shell command is quoted.

    Args:
        where: Name of the target, for error messages.
        serial: Serial number, as returned by `connected`.
    """

    def __init__(self, where: str, serial: str) -> None:
        self.where, self.serial = where, serial

    def adb(self, *arguments: str) -> str:
        """Runs an adb command on the device; returns its output."""
        return read(["-s", self.serial, *arguments], f"{self.where}: adb {arguments[0]}").decode(errors="replace")

    def shell(self, *command: str) -> str:
        """Runs a command in the device's shell; returns its output."""
        return self.adb("shell", shlex.join(command))

    def store(self, contents: Sequence[bytes]) -> list[str]:
        """Stores files on the device; files that were not used for a week are deleted.

        Args:
            contents: Content of each file. A content that the device has is not sent again.

        Returns:
            The path of each file on the device; its name is the SHA-256 of the content.
        """
        names = [hashlib.sha256(content).hexdigest() for content in contents]
        listing = f"mkdir -p {STORE} && find {STORE} -type f -mtime +7 -exec rm -f {{}} + ; ls {STORE}"
        present = set(self.shell("sh", "-c", listing).split())
        with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
            for name, content in zip(names, contents, strict=True):
                if name not in present:
                    local = Path(folder, name)
                    local.write_bytes(content)
                    self.adb("push", str(local), f"{STORE}/{name}.part")
                    self.shell("mv", f"{STORE}/{name}.part", f"{STORE}/{name}")
        self.shell("touch", *(f"{STORE}/{name}" for name in names))
        return [f"{STORE}/{name}" for name in names]


def check(name: str, serial: str) -> None:
    """Checks a serial number's characters, and that adb is installed.

    Args:
        name: Name of the target, for error messages.
        serial: Serial number, or empty.

    Raises:
        InputError: The serial number has characters that none has.
        ToolMissingError: adb is not installed.
    """
    if not re.fullmatch(r"[\w.:-]*", serial) or serial.startswith("-"):
        raise InputError(f"{name}: serial must be one that `adb devices` shows. Received: {serial!r}.")
    if shutil.which("adb") is None:
        raise ToolMissingError(f"{name}: no `adb` on PATH. Install it: sudo apt-get install adb")


def connected(where: str, serial: str) -> str:
    """The serial number of the device to use.

    Args:
        where: Name of the target, for error messages.
        serial: Serial number, or empty for the only device that is connected.

    Raises:
        DeviceError: No device, several devices, or one that cannot be used; the message says what to do.
    """
    lines = read(["devices"], f"{where}: adb devices").decode(errors="replace").splitlines()[1:]
    found = dict(line.split("\t", 1) for line in lines if "\t" in line)
    if serial:
        found = {one: state for one, state in found.items() if one == serial}
    if not found:
        raise DeviceError(
            f"{where}: no connected phone. Plug it in by USB, turn on USB debugging in its developer options, and "
            "allow this computer; `adb devices` must list it."
        )
    if len(found) > 1:
        raise DeviceError(
            f"{where}: several phones are connected: {', '.join(sorted(found))}. Choose one as in android:SERIAL."
        )
    ((one, state),) = found.items()
    if state != "device":
        remedy = next((what for sign, what in _STATES.items() if state.startswith(sign)), "look at its screen")
        raise DeviceError(f"{where}: {one} is not ready: {state}. To fix it, {remedy}.")
    return one


@contextlib.contextmanager
def awake(device: Device) -> Iterator[None]:
    """Keeps the device awake inside the block, and then restores its setting."""
    name = ("global", "stay_on_while_plugged_in")
    before = device.shell("settings", "get", *name).strip()
    try:
        device.shell("svc", "power", "stayon", "true")
        device.shell("input", "keyevent", "KEYCODE_WAKEUP")
        yield
    finally:
        with contextlib.suppress(DeviceError):  # the cable was pulled; the error of the block is the cause
            if before.isdigit():
                device.shell("settings", "put", *name, before)
            else:  # it was never set
                device.shell("settings", "delete", *name)


def read(arguments: Sequence[str], what: str, timeout_s: float | None = None) -> bytes:
    """Runs adb and returns its output.

    Args:
        arguments: Arguments of adb.
        what: The work, for error messages.
        timeout_s: Time limit in seconds, `STEP_S` by default.

    Raises:
        DeviceError: It failed or timed out.
    """
    timeout_s = timeout_s or STEP_S
    try:
        done = subprocess.run(["adb", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what}: timed out after {timeout_s:g} s. Unplug the phone and plug it in again.") from None
    if done.returncode:
        printed = (done.stderr + done.stdout).decode(errors="replace").strip()[-800:]
        raise DeviceError(f"{what}: failed with exit status {done.returncode}: {printed or 'no output'}")
    return done.stdout
