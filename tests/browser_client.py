"""A client of the server for browsers that sends what its page sends, a folder in place of LiteRT.js, and axe-core."""

import base64
import contextlib
import hashlib
import http.client
import io
import json
import struct
import tarfile
import urllib.request
import zlib
from urllib.parse import urlsplit

import platformdirs
import system_packages

from tfkd._internal import atomic
from tfkd.targets import litert_js

AXE_VERSION = "4.14.1"
# As npm's registry has it.
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
TIMED = {
    "latencies_ms": [0.5, 0.6, 0.7, 0.5], "clock_step_ms": 0.005, "batch": 1, "runs": 4, "kept_every": 1,
    "warm_up_runs": 20, "warm_up_stable": True, "longest_pause_ms": 0, "shortest_in_steps": 100,
}  # fmt: skip


class Page:
    """A client of the server that sends what page.js sends.

    Args:
        url: URL of the page.
        model: The model.
        x: Samples in its data type.
        outputs: Its outputs, as LiteRT.js returns them.
    """

    def __init__(self, url, model, x, outputs):
        parts = urlsplit(url)
        self.address, self.folder = (parts.hostname, parts.port), parts.path
        self.model, self.x, self.outputs = model, x, outputs

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        connection.request(method, path if path.startswith("/") else self.folder + path, body, headers or {})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply, content

    def get(self, path):
        return self.request("GET", path)[1]

    def record(self, **changes):
        """The header of an answer that is right, except for the changes."""
        job = json.loads(self.get("job.json"))
        sent, crcs = self.get("model.tflite"), [0] * len(job["inputs"])
        for i in range(len(job["inputs"])):
            for part in range(-(-job["samples"] // job["part_samples"])):
                crcs[i] = zlib.crc32(self.get(f"input/{i}/{part}"), crcs[i])
        outputs = [
            {"dtype": str(y.dtype), "shape": [1, *y.shape[1:]], "crc32": zlib.crc32(y.tobytes())} for y in self.outputs
        ]
        record = {
            "nonce": job["nonce"],
            "model_bytes": len(sent),
            "model_crc32": zlib.crc32(sent),
            "samples": job["samples"],
            "inputs_crc32": crcs,
            "load_ms": 200.5,
            "compile_ms": 50,
            "first_run_ms": 9,
            "build": "litert_wasm",
            "jspi": False,
            "threads": 1,
            "used_accelerator": "wasm",
            "fully_accelerated": True,
            "timed": TIMED,
            "outputs": outputs,
            "clock_drift_ms": 0.5,
            "printed": [],
            "device": {"user_agent": "Mozilla/5.0 (X11) Chrome/156.0 Safari", "cores": 8},
            "hidden": False,
            "page_pause_ms": 0,
        }
        return record | changes

    def send(self, record, outputs=None):
        header = json.dumps(record).encode()
        outputs = self.outputs if outputs is None else outputs
        body = struct.pack("<I", len(header)) + header + b"".join(y.tobytes() for y in outputs)
        reply, content = self.request("POST", "result", body)
        return reply.status, json.loads(content)


def node_modules(folder):
    """A folder as npm makes it, with contents of no use."""
    for package, names in litert_js._FILES.items():
        for name in names:
            path = folder / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"version": "2.6.0"}' if name == "package.json" else 'import "@litertjs/wasm-utils";')
    return folder


@contextlib.contextmanager
def opened_chromium(*flags):
    """Chromium without a window, for playwright."""
    from playwright.sync_api import sync_playwright

    every = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *flags]
    with (
        sync_playwright() as playwright,
        contextlib.closing(
            playwright.chromium.launch(executable_path=system_packages.find("chromium"), args=every)
        ) as browser,
    ):
        yield browser


def accessibility_faults(page):
    """The rules of axe-core that a page breaks, in light and in dark colors, each with the elements."""
    page.evaluate(_axe())
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found += page.evaluate(
            """axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>
              `${id}: ${nodes.map(({ html }) => html).join(" ")}`))"""
        )
    return found


def _axe():
    """The source of axe-core, from the npm registry once and then from the cache."""
    path = platformdirs.user_cache_path("tfkd") / f"axe-core-{AXE_VERSION}.tgz"
    if not path.exists():
        url = f"https://registry.npmjs.org/axe-core/-/{path.name}"
        with urllib.request.urlopen(url, timeout=60) as reply:
            atomic.write(path, reply.read())
    content = path.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == AXE_SHA512
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packed:
        return packed.extractfile("package/axe.min.js").read().decode()
