"""An emulated phone: the device side of the adb protocol over TCP, with a folder as its file system.

The real adb client connects to it. Commands run in a real shell whose PATH has scripts in place of Android's tools;
`am instrument` runs the model with LiteRT on this machine. The file `fault` in the folder selects a failure.
"""

import contextlib
import hashlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

PACKAGE = "dev.tfkd.bench.app"
TOOLS = {
    # Only run-as may enter the folder of the app.
    "run-as": 'test "$1" = ' + PACKAGE + ' || exit 1; shift; cd "$ROOT/data/data/' + PACKAGE + '" || exit 1; exec "$@"',
    "getprop": 'echo "[ro.product.model]: [desk]"; echo "[ro.build.version.release]: [15]"',
    "dumpsys": 'if [ "$1" = thermalservice ]; then echo "Thermal Status: $(cat "$ROOT/heat" 2>/dev/null || echo 0)"; '
    'elif [ -e "$ROOT/installed" ]; then echo "    versionCode=$(cat "$ROOT/installed") minSdk=26"; fi',
    "pm": 'if [ "$(cat "$ROOT/fault" 2>/dev/null)" = refused ]; then '
    'echo "Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]"; exit 1; fi; '
    'test "$(cat "$ROOT/fault" 2>/dev/null)" = old || echo 2 > "$ROOT/installed"; echo Success',
    "settings": 'case "$1" in get) cat "$ROOT/stay_on";; put) echo "$4" > "$ROOT/stay_on";; '
    'delete) echo null > "$ROOT/stay_on";; esac',
    "svc": 'echo 7 > "$ROOT/stay_on"',
    "input": "exit 0",
    "am": 'if [ "$1" = force-stop ]; then exit 0; fi; exec "$PYTHON" "$DEVICE" "$ROOT" "$@"',
}


def adb(*arguments):
    """Runs the real adb."""
    return subprocess.run(["adb", *arguments], capture_output=True, text=True, timeout=60)


class Phone:
    """An emulated phone; adb connects to its `serial`.

    Args:
        root: Folder of the phone's files.
        state: `device`, `unauthorized` (this computer is not allowed) or `offline` (it never answers).
    """

    def __init__(self, root, state="device"):
        self.root, self.state, self.commands = Path(root), state, []
        (self.root / "data/local/tmp").mkdir(parents=True)
        (self.root / f"data/data/{PACKAGE}").mkdir(parents=True)
        (self.root / "installed").write_text("2")
        (self.root / "stay_on").write_text("0\n")
        (self.root / "bin").mkdir()
        for name, text in TOOLS.items():
            tool = self.root / "bin" / name
            tool.write_text(f"#!/bin/sh\n{text}\n")
            tool.chmod(0o755)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections, self.asleep, self.plugged_in = [], False, True
        self.plug = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def fault(self, name):
        (self.root / "fault").write_text(name)

    def pull_the_cable(self):
        with self.plug:
            self.plugged_in = False
            for one in (self.listener, *self.connections):
                with contextlib.suppress(OSError):  # it is closed already
                    one.shutdown(socket.SHUT_RDWR)  # `close` alone would let a waiting `accept` take one more
        self.listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.plug:
                if not self.plugged_in:
                    connection.close()
                    return
                self.connections.append(connection)
            threading.Thread(target=_Link(self, connection).serve, daemon=True).start()

    def local(self, path):
        return path.replace("/data/local/tmp", f"{self.root}/data/local/tmp")

    def shell(self, command):
        self.commands.append(command)
        environment = {
            **os.environ,
            "ROOT": str(self.root),
            "PYTHON": sys.executable,
            "DEVICE": __file__,
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
        }
        return subprocess.Popen(
            ["/bin/sh", "-c", self.local(command)],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


class _Link:
    """One connection of adb: messages with a header of 24 bytes and a payload, for several streams at a time."""

    def __init__(self, phone, connection):
        self.phone, self.connection = phone, connection
        self.lock, self.streams = threading.Lock(), {}

    def send(self, command, first, second, payload=b""):
        code = struct.unpack("<I", command)[0]
        head = struct.pack("<6I", code, first, second, len(payload), sum(payload) & 0xFFFFFFFF, code ^ 0xFFFFFFFF)
        with self.lock:
            self.connection.sendall(head + payload)

    def receive(self, count):
        content = b""
        while len(content) < count:
            part = self.connection.recv(count - len(content))
            if not part:
                raise ConnectionError("the cable was pulled")
            content += part
        return content

    def serve(self):
        try:
            while True:
                command, first, second, length = struct.unpack("<4s3I", self.receive(24)[:16])
                payload = self.receive(length)
                while self.phone.asleep:
                    time.sleep(0.05)
                if command == b"CNXN" and self.phone.state == "offline":
                    continue
                if (command == b"CNXN" and self.phone.state == "unauthorized") or (command, first) == (b"AUTH", 2):
                    self.send(b"AUTH", 1, 0, os.urandom(20))  # a challenge; no signature of it is accepted
                elif command == b"CNXN":
                    banner = (
                        b"device::ro.product.name=desk;ro.product.model=desk;ro.product.device=desk;features=shell_v2"
                    )
                    self.send(b"CNXN", 0x01000001, 1 << 18, banner)
                elif command == b"OPEN":
                    stream = _Stream(self, len(self.streams) + 1, first, payload.rstrip(b"\0").decode())
                    self.streams[stream.local_id] = stream
                    self.send(b"OKAY", stream.local_id, first)
                    threading.Thread(target=stream.serve, daemon=True).start()
                elif command == b"OKAY" and second in self.streams:
                    self.streams[second].ready.release()
                elif command == b"WRTE" and second in self.streams:
                    self.streams[second].take(payload)
                    self.send(b"OKAY", second, first)
                elif command == b"CLSE" and second in self.streams:
                    self.streams[second].close()
        except (OSError, ConnectionError):
            for stream in self.streams.values():
                stream.close()
        finally:
            self.connection.close()


class _Stream:
    """A stream of a connection: a shell command or a file transfer."""

    def __init__(self, link, local_id, remote_id, service):
        self.link, self.local_id, self.remote_id, self.service = link, local_id, remote_id, service
        self.ready, self.data, self.arrived = threading.Semaphore(1), b"", threading.Condition()
        self.open, self.process = True, None

    def take(self, payload):
        with self.arrived:
            self.data += payload
            self.arrived.notify_all()

    def close(self):
        with self.arrived:
            self.open = False
            self.arrived.notify_all()
        self.ready.release()
        if self.process:
            self.process.kill()

    def read(self, count):
        with self.arrived:
            while len(self.data) < count:
                if not self.open:
                    raise ConnectionError("closed")
                self.arrived.wait()
            content, self.data = self.data[:count], self.data[count:]
            return content

    def write(self, payload):
        self.ready.acquire()
        if not self.open:
            raise ConnectionError("closed")
        self.link.send(b"WRTE", self.local_id, self.remote_id, payload)

    def serve(self):
        try:
            kind, _, rest = self.service.partition(":")
            if kind == "sync":
                self.sync()
            elif kind.startswith("shell,v2"):
                code = self.run(rest, lambda part: self.write(struct.pack("<BI", 1, len(part)) + part))
                self.write(struct.pack("<BIB", 3, 1, code & 255))
            else:  # exec and plain shell: the raw output
                self.run(rest, self.write)
            if self.open:
                self.ready.acquire()  # the last bytes have arrived
                self.link.send(b"CLSE", self.local_id, self.remote_id)
        except (OSError, ConnectionError):
            return

    def run(self, command, out):
        with self.link.phone.shell(command) as self.process:
            try:
                while part := self.process.stdout.read1(1 << 16):
                    out(part)
            except OSError:
                self.process.kill()
                raise
        return self.process.returncode

    def sync(self):
        while True:
            command, length = struct.unpack("<4sI", self.read(8))
            if command == b"QUIT":
                return
            text = self.read(length).decode()
            if command == b"STAT":
                path = Path(self.link.phone.local(text))
                mode, size = (path.stat().st_mode, path.stat().st_size) if path.exists() else (0, 0)
                self.write(struct.pack("<4s3I", b"STAT", mode, size, 0))
            elif command == b"SEND":
                path = Path(self.link.phone.local(text.rpartition(",")[0]))
                with path.open("wb") as file:
                    while True:
                        part, length = struct.unpack("<4sI", self.read(8))
                        if part == b"DONE":
                            break
                        file.write(self.read(length))
                self.write(struct.pack("<4sI", b"OKAY", 0))


def instrument(root, *words):
    """`am instrument`: does what the app does, with LiteRT on this machine."""
    import numpy as np

    from tfkd.conversion import litert
    from tfkd.conversion.tflite import TFLiteModel

    fault = (root / "fault").read_text() if (root / "fault").exists() else ""
    run_id = words[words.index("run_id") + 1]
    folder = root / "data/data" / PACKAGE / "files/runs" / run_id

    def status(phase, percent):
        print(f"INSTRUMENTATION_STATUS: phase={phase}\nINSTRUMENTATION_STATUS: percent={percent}", flush=True)
        print("INSTRUMENTATION_STATUS_CODE: 1", flush=True)

    spec = json.loads((folder / "spec.json").read_text())
    for asset in (spec["model"], *spec["inputs"]):
        content = (folder / asset["file"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != asset["sha256"]:
            print(f"INSTRUMENTATION_RESULT: error={asset['file']}: must be a file with SHA-256")
            print("INSTRUMENTATION_CODE: 2")
            return
    status("warm-up", 0)
    if fault == "crash":
        print("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0")
        return
    if fault in ("hang", "cable"):
        (root / "hanging").touch()
        time.sleep(60)
    model = (folder / "model.tflite").read_bytes()
    restart = litert.needs_restart(TFLiteModel(model).ops)
    inputs = [np.load(folder / asset["file"]) for asset in spec["inputs"]]
    timed = None
    if spec["min_runs"]:
        timed = litert.time_runs(model, "xnnpack", [x[:1] for x in inputs], spec["threads"], timed_s=0.05)
    status("latency", 100)
    outputs = []
    for i, array in enumerate(litert.run(model, "xnnpack", inputs, restart=restart)["outputs"]):
        file = io.BytesIO()
        np.save(file, array[:-1] if fault == "short" else array)
        content = file.getvalue()
        name = "../../output_0.npy" if fault == "hostile" else f"output_{i}.npy"
        outputs.append({"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
        (folder / f"output_{i}.npy").write_bytes(content[:-7] if fault == "cut" else content)
    nanos = list(timed["latencies_ns"]) if timed else []
    hot = fault == "hot"
    result = {
        "format": 1,
        "id": run_id,
        "nonce": "0" * 32 if fault == "nonce" else spec["nonce"],
        "model_sha256": spec["model"]["sha256"],
        "latencies_ns": nanos,
        "samples": len(inputs[0]),
        "outputs": outputs,
        "device": {"model": "desk"},
        "engine": {"engine": "LiteRT"},
        "thermal": [[0, 3 if hot else 0]],
        "per_minute": [],
        "runs": len(nanos),
        "kept_every": 1,
        "warm_up_runs": 1,
        "warm_up_stable": True,
        "valid": not hot,
        "reasons": ["thermal status 3: the device throttled"] if hot else [],
    }
    text = json.dumps(result)
    if fault != "empty":
        (folder / "result.json").write_text(text[: len(text) // 2] if fault == "truncated" else text)
    print(f"INSTRUMENTATION_RESULT: run_id={run_id}\nINSTRUMENTATION_CODE: -1")


if __name__ == "__main__":
    instrument(Path(sys.argv[1]), *sys.argv[2:])
