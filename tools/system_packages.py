"""Installs the system tools that the tests need (`make system-packages`), or lists the tests that will be skipped.

Where all tools are present it uses no network and changes nothing. On Debian and Ubuntu, as root or with a sudo that
needs no password, it installs the missing tools. Elsewhere it prints the command to run and exits with 1. A test whose
tool is missing is skipped, and its reason names the command.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

APT = ("apt-get", "install", "-y", "--no-install-recommends")


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program or a set of files that tests need from the system.

    Args:
        name: Name by which tests refer to the tool.
        places: Commands on PATH, or absolute file patterns; the first one that is found is used.
        package: Debian package that installs it.
        tests: Tests that need it.
        probe: Arguments with which the command must exit with 0; empty if its presence is enough.
        ubuntu: Command that installs it where Ubuntu's package of that name is only a stub.
    """

    name: str
    places: tuple[str, ...]
    package: str
    tests: str
    probe: tuple[str, ...] = ()
    ubuntu: tuple[str, ...] = ()


TOOLS = (
    Tool(
        name="chromium",
        places=(
            "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
            os.path.expanduser("~/.cache/ms-playwright/chromium-*/chrome-linux*/chrome"),
        ),
        package="chromium",
        tests="tests/report/test_page.py (the page in a browser), tests/targets/test_browser.py (LiteRT.js)",
        # Ubuntu's chromium is a script that only tells to install a snap: asking its version fails.
        probe=("--version",),
        ubuntu=(sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"),
    ),
    Tool(
        name="firefox",
        places=(
            "firefox-esr", "firefox",
            os.path.expanduser("~/.cache/ms-playwright/firefox-*/firefox/firefox"),
        ),
        package="firefox-esr",
        tests="tests/targets/test_browser.py (LiteRT.js in a second browser)",
        # Ubuntu's firefox may be a script that only tells to install a snap, too.
        probe=("--version",),
        ubuntu=(sys.executable, "-m", "playwright", "install", "--with-deps", "firefox"),
    ),
    Tool(
        name="fonts",
        places=("/usr/share/fonts/**/DejaVuSans.ttf", "/usr/share/fonts/**/LiberationSans-Regular.ttf"),
        package="fonts-dejavu-core",
        tests="tests/report/test_page.py (the page in a browser)",
    ),
    Tool(name="adb", places=("adb",), package="adb", tests="tests/targets/test_android.py (a phone)"),
    Tool(name="ssh", places=("ssh",), package="openssh-client", tests="tests/targets/test_ssh.py (an edge box)"),
    Tool(name="javac", places=("javac",), package="openjdk-17-jdk-headless", tests="the tests of android_demo"),
    Tool(name="aapt", places=("aapt",), package="aapt", tests="tests/tools/test_build_apk.py (the app)"),
    Tool(name="zipalign", places=("zipalign",), package="zipalign", tests="tests/tools/test_build_apk.py (the app)"),
    Tool(name="apksigner", places=("apksigner",), package="apksigner", tests="tests/tools/test_build_apk.py (the app)"),
    Tool(name="dexdump", places=("dexdump",), package="dexdump", tests="tests/tools/test_build_apk.py (the app)"),
    Tool(
        name="framework",
        places=("/usr/share/android-framework-res/framework-res.apk",),
        package="android-framework-res",
        tests="tests/tools/test_build_apk.py (the Android app)",
    ),
    Tool(
        name="arm-none-eabi-gcc",
        places=("arm-none-eabi-gcc",),
        package="gcc-arm-none-eabi",
        tests="tests/targets/test_cortex_m.py (a compiler of the user's)",
    ),
    Tool(name="maven", places=("mvn",), package="maven", tests="tests/android_demo (the app)"),
    Tool(
        name="qemu",
        places=("qemu-aarch64-static", "qemu-aarch64"),
        package="qemu-user-static",
        tests="tests/targets/test_arm64.py (ARM's kernels)",
    ),
    Tool(
        name="qemu-system-arm",
        places=("qemu-system-arm",),
        package="qemu-system-arm",
        tests="tests/targets/test_cortex_m.py and tests/micro/test_streaming.py (the Cortex-M55)",
    ),
    Tool(
        name="debian keys",
        places=("/usr/share/keyrings/debian-archive-keyring.gpg",),
        package="debian-archive-keyring",
        tests="tests/targets/test_arm64.py (ARM's kernels)",
    ),
    Tool(
        name="sshd",
        places=("/usr/sbin/sshd", "sshd"),
        package="openssh-server",
        tests="tests/targets/test_ssh.py (an edge box)",
    ),
)  # fmt: skip


def find(name: str) -> str | None:
    """Path of a tool of `TOOLS`, or None if it is missing or does not start."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    for place in tool.places:
        found = sorted(glob.glob(place, recursive=True)) if os.path.isabs(place) else [shutil.which(place)]
        for path in filter(None, found):
            if not tool.probe or _starts((path, *tool.probe)):
                return path
    return None


def install_line(*tools: Tool) -> str:
    """Shell command that installs these tools on this system."""
    stubs = [tool for tool in tools if tool.ubuntu and _distribution() == "ubuntu"]
    packages = [tool.package for tool in tools if tool not in stubs]
    lines = [" ".join(("sudo", *APT, *packages))] if packages else []
    return " && ".join(lines + [" ".join(tool.ubuntu) for tool in stubs])


def skip_reason(name: str) -> str | None:
    """Reason to skip a test that needs this tool, with the command that installs it; None if the tool is present."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    return None if find(name) else f"{name} is missing. Install it: {install_line(tool)}"


def main() -> int:
    """Installs the missing tools where it may, lists those that stay missing, and returns the exit status."""
    missing = [tool for tool in TOOLS if not find(tool.name)]
    if not missing:
        return 0
    may_install = _distribution() in ("debian", "ubuntu") and _privilege() is not None
    if may_install:
        print(f"Installing {', '.join(tool.name for tool in missing)} for the tests.", flush=True)
        _install(missing)
        missing = [tool for tool in missing if not find(tool.name)]
    for tool in missing:
        print(f"Not run, because {tool.name} is missing: {tool.tests}")
    if missing:
        print(f"Install what is missing: {install_line(*missing)}")
    return 1 if missing else 0


def _install(tools: list[Tool]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    stubs = [tool for tool in tools if tool.ubuntu and _distribution() == "ubuntu"]
    packages = [tool.package for tool in tools if tool not in stubs]
    prefix = _privilege() or ()
    # sudo drops the environment, hence `env`.
    apt = (*prefix, "env", "DEBIAN_FRONTEND=noninteractive")
    commands = [(*apt, "apt-get", "update"), (*apt, *APT, *packages)] if packages else []
    for command in commands + [tool.ubuntu for tool in stubs]:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def _privilege() -> tuple[str, ...] | None:
    """Prefix of a command that needs root: empty for root, `sudo -n` if sudo needs no password, else None."""
    if os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if shutil.which("sudo") and _starts(("sudo", "-n", "true")) else None


def _distribution() -> str:
    """ID of the Linux distribution (`debian`, `ubuntu`, ...), or "" if /etc/os-release does not state one."""
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.is_file() else []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("ID", "").strip('"')


def _starts(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    sys.exit(main())
