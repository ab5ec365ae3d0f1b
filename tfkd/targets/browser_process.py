"""Chromium and Firefox without a window, each with a new and temporary profile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfkd.errors import InputError, ToolMissingError

COMMANDS = {
    "chromium": (
        "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "firefox": ("firefox", "firefox-esr", "/Applications/Firefox.app/Contents/MacOS/firefox"),
}  # fmt: skip
_CHROMIUM = (
    "--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio", "--disable-dev-shm-usage",
)  # fmt: skip
_ACCELERATED = {
    "wasm": (),
    "webgpu": ("--enable-unsafe-webgpu", "--enable-features=Vulkan"),
    "webnn": ("--enable-features=WebMachineLearningNeuralNetwork",),
}
# No page of Firefox's own, and no request that is not ours.
_FIREFOX = """\
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("services.settings.server", "data:,");
user_pref("browser.startup.page", 0);
user_pref("browser.newtab.preload", false);
user_pref("dom.ipc.processPrelaunch.enabled", false);
"""


def find(name: str) -> str:
    """Path of a browser.

    Args:
        name: `chromium`, `firefox`, the path of one, or empty for the first that is installed.

    Raises:
        InputError: The path is no program.
        ToolMissingError: The browser is not installed.
    """
    if "/" in name:
        if not os.access(name, os.X_OK) or Path(name).is_dir():
            raise InputError(f"browser: {name} must be a browser. Received: a path that is no program.")
        return name
    chosen = [name] if name else list(COMMANDS)
    found = next(filter(None, (shutil.which(command) for one in chosen for command in COMMANDS[one])), None)
    if found is None:
        raise ToolMissingError(
            f"browser: {name or 'neither chromium nor firefox'} is {'not ' if name else ''}installed. Install it: "
            f"sudo apt-get install {chosen[0] if chosen[0] != 'firefox' else 'firefox-esr'}; or name the path of one: "
            "browser:/path/of/chrome"
        )
    return found


class Running:
    """A browser that runs.

    Args:
        process: Its process, the leader of a group.
        log: File with what it printed.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def ended(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    @property
    def printed(self) -> str:
        """The last lines that it printed."""
        return self._log.read_text(errors="replace").strip()[-800:]


@contextlib.contextmanager
def running(path: str, url: str, accelerator: str) -> Iterator[Running]:
    """Opens a page in a browser without a window, and ends the browser after the block.

    Args:
        path: Path of the browser.
        url: The page.
        accelerator: `wasm`, `webgpu` or `webnn`.
    """
    with tempfile.TemporaryDirectory(prefix="tfkd-browser-", ignore_cleanup_errors=True) as folder:
        profile, log = Path(folder, "profile"), Path(folder, "log")
        profile.mkdir()
        if "firefox" in Path(path).name.lower():
            (profile / "user.js").write_text(_FIREFOX)
            options = ["--headless", "--no-remote", "--new-instance", "--profile", str(profile)]
        else:
            options = [*_CHROMIUM, *_ACCELERATED[accelerator], f"--user-data-dir={profile}"]
            if sys.platform == "linux" and os.geteuid() == 0:  # Chromium's sandbox refuses root
                options.append("--no-sandbox")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [path, *options, url], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield Running(process, log)
        finally:
            for one in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, one)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
