"""What a browser is sent and what is taken from it, by real requests over HTTP; the outputs are those of the host."""

import concurrent.futures
import contextlib
import datetime
import gc
import http.client
import ipaddress
import json
import random
import socket
import ssl
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
import system_packages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tornado import iostream

from tests.browser_client import TIMED, Page, accessibility_faults, opened_chromium
from tfkd import targets
from tfkd.errors import InputError
from tfkd.targets import browser_server
from tfkd.targets.browser_answer import Answer, browser_name
from tfkd.targets.browser_live import LivePage
from tfkd.targets.browser_server import Reply, Site
from tfkd.targets.browser_summary import Agreement, Expected
from tfkd.targets.browser_trial import Settings, Trial
from tfkd.targets.litert_js import Library

MISSING = system_packages.skip_reason("chromium")
SAMPLES = 20
LIBRARY = Library("2.5.3", {"index.js": b"export {};"})


@pytest.fixture(scope="module")
def x(digits_int8, splits):
    return digits_int8.quantize_input(splits.test.x[:SAMPLES])


@pytest.fixture(scope="module")
def expected(digits_int8, x):
    return targets.get("host").run(digits_int8, x, latency=False).outputs


@pytest.fixture
def serve(digits_int8, x, expected, splits):
    """Starts a trial; returns it and a page."""

    def start(**settings):
        known = Expected({"host": expected}, splits.test.y[:SAMPLES])
        trial = Trial("browser", digits_int8, [x], LIBRARY, Settings(**settings), known)
        token = browser_server.new_token()
        url = stack.enter_context(browser_server.serving({token: trial.site}))
        return trial, Page(f"{url}{token}/", digits_int8, x, [digits_int8.dequantize_output(expected[0])])

    with contextlib.ExitStack() as stack:
        yield start


def test_answer_becomes_a_measurement_in_the_models_integers(serve, digits_int8, expected):
    trial, page = serve()
    status, shown = page.send(page.record())
    found = trial.answers.get_nowait().measurement
    assert status == 200
    assert shown["verdict"] == "Same answers"
    assert dict(shown["facts"])["Equal to host"] == "20 of 20 samples, bit for bit"
    assert found.outputs[0].dtype == np.int8
    assert np.array_equal(found.outputs[0], expected[0])
    assert found.latencies_ns == (500_000, 600_000, 700_000, 500_000)
    assert found.model_sha256 == digits_int8.sha256
    assert [text.split()[0] for text in found.environment["model_changes"]] == ["QUANTIZE", "DEQUANTIZE"]
    assert found.environment["browser"] == "Chromium 156"
    assert found.valid


def test_agreement_with_each_target_of_this_machine(digits_int8, x, expected, splits):
    """The verdict is that of the closest one: the others round otherwise on this CPU."""
    other = expected[0].copy()
    other[4] = other[4, ::-1]
    outputs = {"host": (other,), "host:reference": tuple(expected)}
    trial = Trial("browser", digits_int8, [x], LIBRARY, Settings(), Expected(outputs, splits.test.y[:SAMPLES]))
    with browser_server.serving({"t": trial.site}) as url:
        page = Page(f"{url}t/", digits_int8, x, [digits_int8.dequantize_output(expected[0])])
        shown = page.send(page.record())[1]
    facts = dict(shown["facts"])
    assert shown["verdict"] == "Same answers"
    assert facts["Equal to host"] == "19 of 20 samples, bit for bit"
    assert facts["Equal to host:reference"] == "20 of 20 samples, bit for bit"


def test_few_slow_inferences_leave_the_others_apart_in_the_histogram(serve):
    trial, page = serve()
    ms = [*np.linspace(1, 1.5, 97), 90, 95, 99]
    shown = page.send(page.record(timed=TIMED | {"latencies_ms": ms}))[1]["histogram"]
    assert (shown["lowest"], shown["highest"]) == ("1 ms", "3.77 ms and more")
    assert sum(shown["counts"]) == 100
    assert shown["counts"][-1] == 3
    assert sum(count > 0 for count in shown["counts"][:8]) >= 4


def test_page_says_how_many_samples_differ(serve):
    trial, page = serve()
    page.outputs[0][3] = page.outputs[0][3, ::-1]
    shown = page.send(page.record())[1]
    assert shown["state"] == "bad"
    assert shown["verdict"] == "1 of 20 differ"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden": True}, "background"),
        ({"page_pause_ms": 9000.0}, "stood still for 9.0 s"),
        ({"clock_drift_ms": 5000.0}, "the device slept"),
        ({"timed": TIMED | {"longest_pause_ms": 3000}}, "held up for 3.0 s"),
        ({"timed": TIMED | {"shortest_in_steps": 3}}, "only 3 of them"),
    ],
)
def test_run_that_was_disturbed_is_not_valid(serve, changes, reason):
    trial, page = serve()
    assert page.send(page.record(**changes))[0] == 200
    found = trial.answers.get_nowait().measurement
    assert not found.valid
    assert reason in found.invalid_reason


def test_accelerator_that_took_nothing_or_a_part_is_said(serve):
    trial, page = serve(accelerator="webgpu", once=False)
    page.send(page.record())
    page.send(page.record(used_accelerator="webgpu", fully_accelerated=False))
    nothing, part = (trial.answers.get_nowait().measurement for _ in range(2))
    assert not nothing.valid
    assert "webgpu did not take the whole model" in nothing.invalid_reason
    assert part.valid
    assert part.setting["accelerator"] == "webgpu, partly wasm"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nonce": "0" * 32}, "has been taken"),
        ({"nonce": None}, "has been taken"),
        ({"model_crc32": 1}, "model_crc32 differ"),
        ({"model_bytes": 1}, "model_bytes differ"),
        ({"inputs_crc32": [1]}, "inputs_crc32 differ"),
        ({"samples": SAMPLES - 1}, "samples differ"),
        ({"outputs": []}, "0 outputs came back"),
        ({"outputs": [{"dtype": "float32", "shape": [1, 10], "crc32": 1}]}, "incomplete or damaged"),
        ({"outputs": [{"dtype": "float32", "shape": [1, 10**9], "crc32": 1}]}, "incomplete or damaged"),
        ({"timed": TIMED | {"latencies_ms": []}}, "latencies_ms"),
        ({"timed": TIMED | {"latencies_ms": [float("nan")]}}, "latencies_ms"),
        ({"timed": TIMED | {"latencies_ms": [-1]}}, "latencies_ms"),
        ({"hidden": 0}, "hidden"),
        ({"device": None}, "device"),
    ],
)
def test_answer_of_another_run_or_with_damage_is_refused(serve, changes, message):
    trial, page = serve()
    status, shown = page.send(page.record(**changes))
    assert status in (400, 409)
    assert message in shown["error"]
    assert trial.answers.empty()


def test_outputs_that_no_integer_stands_for_are_refused(serve):
    trial, page = serve()
    page.outputs[0][0, 0] += 1e-3
    assert "no int8 stands for" in page.send(page.record())[1]["error"]
    assert trial.answers.empty()


def test_second_device_and_second_answer_do_not_replace_the_first(serve):
    trial, page = serve(once=True)
    first, second = page.record(), page.record()
    assert page.send(first)[0] == 200
    assert page.send(first) == (409, {"error": "Another device has answered already."})
    assert page.send(second)[0] == 409
    assert trial.answers.qsize() == 1


def test_two_devices_answer_where_several_are_asked(serve):
    trial, page = serve(once=False)
    first, second = page.record(), page.record()
    assert page.send(second)[0] == page.send(first)[0] == 200
    assert page.send(first)[0] == 409
    assert trial.answers.qsize() == 2


def test_failure_of_a_browser_is_passed_on_with_what_it_printed(serve):
    trial, page = serve()
    nonce = json.loads(page.get("job.json"))["nonce"]
    page.send({"nonce": nonce, "error": "Error: no memory", "printed": ["malloc"], "is_model": True}, [])
    answer = trial.answers.get_nowait()
    assert (answer.measurement, answer.error, answer.is_model) == (None, "Error: no memory malloc", True)


def test_server_isolates_the_page_and_lists_nothing(serve):
    trial, page = serve()
    reply, content = page.request("GET", "")
    assert b"Start the test" in content
    assert reply.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert reply.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "Access-Control-Allow-Origin" not in reply.headers
    for path in ("/", "/wrong/", "/wrong/job.json", "litert/", "input/0/99", "input/9/0", "../", "%2e%2e/job.json"):
        reply = page.request("GET", path)[0]
        assert (reply.status, reply.headers["Server"]) == (404, "tfkd"), path


def test_hostile_requests_change_nothing(serve):
    trial, page = serve()
    rng = random.Random(0)
    parts = ["..", "input", "0", "-1", "9" * 30, "result", "job.json", "%00", "etc/passwd", "é".encode().hex(), "//"]
    for _ in range(200):
        path = "".join(rng.choice(["/", page.folder])) + "/".join(rng.choices(parts, k=rng.randint(1, 4)))
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"])
        length = rng.choice(["0", "-1", "1e9", "9" * 40, "1_0", "٣", ""])
        lines = f"{method} {path} HTTP/1.{rng.randint(0, 1)}\r\nContent-Length: {length}\r\n\r\n".encode()
        with socket.create_connection(page.address, timeout=10) as one:
            one.sendall(rng.choice([lines, lines[: rng.randint(1, len(lines))], rng.randbytes(100)]))
            one.shutdown(socket.SHUT_WR)
            received = one.recv(100)
        assert not received.startswith(b"HTTP/1.0 500")
    assert trial.answers.empty()
    assert page.send(page.record())[0] == 200


def test_large_and_half_sent_answers_end(serve, monkeypatch):
    monkeypatch.setattr(browser_server, "_CONNECTION_S", 0.3)
    trial, page = serve()
    too_large = {"Content-Length": str(trial.site.limit_bytes + 1)}
    assert page.request("POST", "result", headers=too_large)[0].status == 400
    assert page.request("GET", "", headers={"Content-Length": "1"})[0].status == 400
    host = "Host: 127.0.0.1\r\n"
    for start in ("POST", f"POST {page.folder}result HTTP/1.1\r\n{host}Content-Length: 1000\r\n\r\nabc"):
        with socket.create_connection(page.address, timeout=60) as one:
            one.sendall(start.encode())
            assert one.recv(100) == b""  # the server gives up
    assert trial.answers.empty()


def test_device_has_its_reply_before_the_server_ends():
    taken = threading.Event()

    def receive(body):
        taken.set()
        time.sleep(0.3)  # as the comparison of large outputs, after the answer was taken
        return Reply(200, {"verdict": body.decode()})

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with browser_server.serving({"t": Site({}, lambda path: None, receive, 100)}) as url:
            reply = pool.submit(urllib.request.urlopen, f"{url}t/result", b"yes", timeout=60)
            assert taken.wait(60)
        assert json.load(reply.result()) == {"verdict": "yes"}


def test_only_so_many_connections_are_open_at_once(serve):
    trial, page = serve()
    idle = [socket.create_connection(page.address, timeout=10) for _ in range(browser_server._MOST_CONNECTIONS)]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        page.get("job.json")  # refused, since each idle connection was taken before it
    for one in idle:
        one.close()


def test_closed_connections_leave_the_memory(serve):
    trial, page = serve()
    for _ in range(20):
        page.get("job.json")
    for _ in range(100):  # until the server has seen the end of the last one
        gc.collect()
        left = [one for one in gc.get_objects() if isinstance(one, iostream.IOStream)]
        if len(left) <= 1:
            break
        time.sleep(0.05)
    assert len(left) <= 1, left


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A PEM file with a certificate of 127.0.0.1 that signs itself, and its key."""
    now, key = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tfkd")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(address, critical=False)
    signed = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    path = tmp_path_factory.mktemp("https") / "me.pem"
    plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*plain) + signed.sign(key, hashes.SHA256()).public_bytes(plain[0]))
    return path


def test_https_with_a_certificate_and_a_client_that_sends_nothing(certificate):
    site = Site({"": b"hello"}, lambda path: None, lambda body: Reply(404, {}), 0)
    with browser_server.serving({"t": site}, certificate=str(certificate)) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)):  # without a handshake, it blocks nobody
            context = ssl.create_default_context(cafile=certificate)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which wants more of one that signs itself
            with urllib.request.urlopen(f"{url}t/", context=context, timeout=10) as reply:
                assert (parts.scheme, reply.read()) == ("https", b"hello")


def test_wrong_certificate_and_a_port_in_use_are_refused(tmp_path):
    site = Site({}, lambda path: None, lambda body: Reply(404, {}), 0)
    (tmp_path / "no.pem").write_text("none")
    with (
        pytest.raises(InputError, match="certificate must be a PEM file"),
        browser_server.serving({"t": site}, certificate=str(tmp_path / "no.pem")),
    ):
        pass
    with browser_server.serving({"t": site}) as url, pytest.raises(InputError, match="cannot listen"):
        browser_server.serving({"t": site}, port=urlsplit(url).port).__enter__()


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.network
def test_live_page_is_accessible_and_fits_a_phone(serve, expected):
    trial, page = serve()
    page.send(page.record(hidden=True))
    live = LivePage("student.tflite", Expected({"host": expected}))
    live.add(trial.answers.get_nowait())
    live.add(Answer(None, error="Error: no memory", device={"user_agent": "(Android 15) Firefox/153.0"}))
    with browser_server.serving({"live": live.site}) as url, opened_chromium() as browser:
        live.url = f"{url}devices/"
        window = browser.new_page(viewport={"width": 360, "height": 740})
        window.clock.install()
        window.goto(f"{url}live/")
        window.get_by_role("status").filter(has_text="2 devices").wait_for()
        rows = window.get_by_role("row").all_inner_texts()
        assert "Same answers" in rows[1]
        assert "background" in rows[1]
        assert "no memory" in rows[2]
        assert window.evaluate("document.documentElement.scrollWidth") <= 360
        assert accessibility_faults(window) == []
        window.route("**/rows.json", lambda route: route.abort())
        window.clock.fast_forward(2000)
        window.get_by_role("status").filter(has_text="cannot be reached").wait_for()
        window.unroute("**/rows.json")
        window.clock.fast_forward(2000)
        window.get_by_role("status").filter(has_text="2 devices").wait_for()


def test_agreement_of_other_values():
    expected = [np.array([[0, 1], [1, 0]], "float32")]
    close = Agreement.of([np.array([[0, 1.5], [1, 0]], "float32")], expected, labelled=0)
    assert close == Agreement(samples=2, equal=1, same_class=2, largest=0.5, share=0.5, integers=False)
    assert close.sentences()[:2] == ("good", "Same classes")
    swapped = Agreement.of([np.array([[1, 0], [1, 0]], "float32")], expected, labelled=0)
    assert swapped.sentences()[0] == "bad"


@pytest.mark.parametrize(
    ("outputs", "sentences"),
    [
        ([[10], [128]], ("good", "Close answers", "up to 1 steps, 0.85 % of their range")),
        ([[10], [100]], ("bad", "Other answers", "up to 27 steps, 23 % of their range")),
        ([[10], [127]], ("good", "Same answers", "bit for bit")),
    ],
    ids=("close", "other", "same"),
)
def test_outputs_that_are_no_classes_are_compared_by_value(outputs, sentences):
    """The index of the largest value says nothing where there is one value."""
    found = Agreement.of([np.array(outputs, "uint8")], [np.array([[10], [127]], "uint8")], labelled=None)
    state, verdict, explanation = found.sentences()
    assert (state, verdict) == sentences[:2]
    assert sentences[2] in explanation


def test_values_that_are_no_numbers_or_have_no_range_are_other_answers():
    one = np.array([[1.0], [1.0]], "float32")
    for outputs in (np.array([[np.nan], [1.0]], "float32"), np.array([[1.1], [1.0]], "float32")):
        state, verdict, explanation = Agreement.of([outputs], [one], labelled=None).sentences()
        assert (state, verdict) == ("bad", "Other answers")
        assert "range" not in explanation


def test_a_second_output_that_is_no_number_is_another_answer():
    host = [np.array([[0.0], [1.0]], "float32")] * 2
    found = Agreement.of([host[0], np.array([[np.nan], [1.0]], "float32")], host, labelled=None)
    assert found.sentences()[:2] == ("bad", "Other answers")


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("(iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile/15E148 Safari/604.1", "Safari 18"),
        ("(iPhone) AppleWebKit/605.1.15 CriOS/138.0.7204.53 Safari/604.1", "Chrome for iOS (WebKit) 138"),
        ("(Linux; Android 10; K) SamsungBrowser/28.0 Chrome/130.0.0.0 Safari/537.36", "Samsung Internet 28"),
        ("curl/8", "unknown browser"),
    ],
)
def test_browser_name(user_agent, name):
    assert browser_name(user_agent) == name
