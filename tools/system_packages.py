"""Installs what the tests need from the system, or says which tests will not run without it.

Where all is there it only looks and touches no network. On Debian and Ubuntu, as root or with a sudo that asks no
password, it installs what is missing. Elsewhere it prints the line to run and exits with 0: the tests that need the
tool skip and name it.
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
    """One thing that tests need from the system.

    Args:
        name: what a test asks for.
        places: commands on PATH, or absolute file patterns; one that is found is enough.
        package: the Debian package that brings it.
        tests: which tests need it.
        probe: arguments with which a found command must exit with 0; empty where being there is enough.
        ubuntu: the command that installs it where Ubuntu's package of that name is only a stub.
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
        tests="tests/test_report.py (the page in a browser)",
        # Ubuntu's chromium is a script that only tells to install a snap: asking its version fails.
        probe=("--version",),
        ubuntu=(sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"),
    ),
    Tool(
        name="fonts",
        places=("/usr/share/fonts/**/DejaVuSans.ttf", "/usr/share/fonts/**/LiberationSans-Regular.ttf"),
        package="fonts-dejavu-core",
        tests="tests/test_report.py (the page in a browser)",
    ),
    Tool(name="adb", places=("adb",), package="adb", tests="tests/test_android.py (a phone)"),
    Tool(name="ssh", places=("ssh",), package="openssh-client", tests="tests/test_ssh.py (an edge box)"),
    Tool(name="javac", places=("javac",), package="openjdk-17-jdk-headless", tests="the tests of android_demo"),
    Tool(name="aapt", places=("aapt",), package="aapt", tests="tests/test_build_apk.py (the app)"),
    Tool(name="zipalign", places=("zipalign",), package="zipalign", tests="tests/test_build_apk.py (the app)"),
    Tool(name="apksigner", places=("apksigner",), package="apksigner", tests="tests/test_build_apk.py (the app)"),
    Tool(name="dexdump", places=("dexdump",), package="dexdump", tests="tests/test_build_apk.py (the app)"),
    Tool(
        name="framework",
        places=("/usr/share/android-framework-res/framework-res.apk",),
        package="android-framework-res",
        tests="tests/test_build_apk.py (the Android app)",
    ),
    Tool(
        name="arm-none-eabi-gcc",
        places=("arm-none-eabi-gcc",),
        package="gcc-arm-none-eabi",
        tests="tests/test_cortex_m.py (a compiler of the user's)",
    ),
    Tool(name="maven", places=("mvn",), package="maven", tests="tests/test_android_core.py, _app.py (the app)"),
    Tool(
        name="qemu",
        places=("qemu-aarch64-static", "qemu-aarch64"),
        package="qemu-user-static",
        tests="tests/test_arm64.py (ARM's kernels)",
    ),
    Tool(
        name="debian keys",
        places=("/usr/share/keyrings/debian-archive-keyring.gpg",),
        package="debian-archive-keyring",
        tests="tests/test_arm64.py (ARM's kernels)",
    ),
    Tool(
        name="sshd",
        places=("/usr/sbin/sshd", "sshd"),
        package="openssh-server",
        tests="tests/test_ssh.py (an edge box)",
    ),
)  # fmt: skip


def find(name: str) -> str | None:
    """The path of a tool of `TOOLS`, or None where it is missing or does not start."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    for place in tool.places:
        found = sorted(glob.glob(place, recursive=True)) if os.path.isabs(place) else [shutil.which(place)]
        for path in filter(None, found):
            if not tool.probe or _starts((path, *tool.probe)):
                return path
    return None


def install_line(*tools: Tool) -> str:
    """The commands that install these tools on this system, for a person to paste."""
    stubs = [tool for tool in tools if tool.ubuntu and _distribution() == "ubuntu"]
    packages = [tool.package for tool in tools if tool not in stubs]
    lines = [" ".join(("sudo", *APT, *packages))] if packages else []
    return " && ".join(lines + [" ".join(tool.ubuntu) for tool in stubs])


def skip_reason(name: str) -> str | None:
    """Why a test that needs this tool cannot run, with the line that installs it; None where the tool is there."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    return None if find(name) else f"{name} is missing. Install it: {install_line(tool)}"


def main() -> int:
    """Installs what is missing where it may; prints what will not run where it may not."""
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
    return 0


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
    """What to put before a command that needs root: nothing for root, `sudo -n` where it asks no password."""
    if os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if shutil.which("sudo") and _starts(("sudo", "-n", "true")) else None


def _distribution() -> str:
    """`debian`, `ubuntu`, another name, or "" where the system does not say."""
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
