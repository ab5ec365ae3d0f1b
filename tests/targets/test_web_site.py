"""`tfkd export-web`: the page in a real Chromium, with its fake camera and microphone."""

import contextlib
import functools
import http.server
import itertools
import json
import math
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import system_packages
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from tests.browser_client import accessibility_faults, node_modules, opened_chromium
from tfkd import cli, targets
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import images, sound_features, sounds
from tfkd.data.reading import CROPS, RESIZES, ReadingOptions
from tfkd.errors import InputError, ModelError
from tfkd.targets import litert_js, web_site

MISSING = system_packages.skip_reason("chromium")
needs_chromium = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
PAGE = Path(web_site.__file__).with_name("browser_page")
RATE, TONE_HZ = 16_000, 1000
SPEECH = ReadingOptions(sample_rate=RATE, seconds=1.0, features="log_mel", mel_bands=20)
# Keeps the latest answer of the page.
LISTEN = """document.addEventListener("answer", ({ detail }) => {
  window.latest = { outputs: [...detail.outputs], input: [...detail.input] };
})"""


@pytest.fixture(scope="module")
def digit_file(splits, tmp_path_factory):
    """A digit as a picture of another size and aspect ratio than the model's, with noise."""
    large = np.kron(splits.test.x[3, ..., 0], np.ones((7, 9), "uint8"))
    noise = np.random.default_rng(0).integers(0, 9, large.shape, "uint8")
    path = tmp_path_factory.mktemp("picture") / "digit.png"
    Image.fromarray(np.clip(large.astype(int) + noise, 0, 255).astype("uint8")).save(path)
    return path


@pytest.fixture(scope="module")
def tone_file(tmp_path_factory):
    """A second of a steady tone in noise."""
    wave = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(RATE) / RATE) + np.random.default_rng(0).normal(0, 0.02, RATE)
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def chromium(digit_file, tone_file, tmp_path_factory):
    """Chromium, whose camera shows the digit and whose microphone hears the tone."""
    video = tmp_path_factory.mktemp("camera") / "digit.y4m"
    luma = np.asarray(Image.open(digit_file).resize((320, 240), Image.Resampling.NEAREST)).astype(float)
    frame = (16 + luma * 219 / 255).astype("uint8").tobytes() + bytes([128]) * (320 * 240 // 2)
    video.write_bytes(b"YUV4MPEG2 W320 H240 F30:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + frame) * 3)
    flags = (
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}", f"--use-file-for-fake-audio-capture={tone_file}",
    )  # fmt: skip
    with opened_chromium(*flags) as browser:
        yield browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Prints nothing."""


@pytest.fixture
def hosted(tmp_path):
    """A folder that any host could serve, and its address under a path."""
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield tmp_path / "some/where", f"http://127.0.0.1:{server.server_port}/some/where/"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def opened(browser, url):
    """The page on a phone, ready for its first input; it may load nothing from elsewhere and print no error."""
    with contextlib.closing(browser.new_page(viewport={"width": 360, "height": 740})) as page:
        requests, printed, errors = [], [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: printed.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(LISTEN)
        page.goto(url)
        page.get_by_role("status").filter(has_text="Ready").wait_for(timeout=30_000)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert all(one.startswith((url, "data:")) for one in requests)
        assert not errors
        assert not [text for text in printed if re.search("Security Policy|Failed to load resource", text)]


def answer_to(page, action):
    """The answer to the next input."""
    page.evaluate("window.latest = null")
    action()
    for _ in range(400):  # `wait_for_function` needs an eval, which the page forbids
        if (found := page.evaluate("window.latest")) is not None:
            return found
        page.wait_for_timeout(50)
    raise AssertionError(page.get_by_role("status").inner_text())


@needs_chromium
@pytest.mark.network
def test_picture_and_camera_have_the_answers_of_the_host(chromium, hosted, digits_int8, digit_file):
    folder, url = hosted
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "<b>nine")
    arguments = ("export-web", digits_int8.path, "--out", folder, "--labels", ",".join(names), "--json")
    done = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    pixels = images.decode(digit_file, ReadingOptions(image_size=(8, 8), color="gray"))[None]
    raw = targets.get("host").run(digits_int8, digits_int8.quantize_input(pixels), latency=False).outputs[0]
    expected = digits_int8.dequantize_output(raw)[0]
    with opened(chromium, url) as page:
        found = answer_to(page, lambda: page.locator("#file").set_input_files(digit_file))
        assert found["input"] == pixels.ravel().tolist()
        assert found["outputs"] == expected.tolist()
        first = page.locator("#answers li").first
        share = 100 * np.exp(expected - expected.max()).max() / np.exp(expected - expected.max()).sum()
        assert first.inner_text().split("\n") == [names[expected.argmax()], f"{share:.1f} %"]
        assert page.locator("#answers li").count() == 5
        assert accessibility_faults(page) == []
        assert re.search(r"Median latency\s+[\d.]+ ms", page.locator("#facts").inner_text())
        both = page.evaluate(
            """async () => {
              const picture = (value) => ({ pixels: new Uint8ClampedArray(256).fill(value), width: 8, height: 8 });
              const answers = await Promise.all([0, 200].map((value) => ask({ picture: picture(value) })));
              return answers.map((one) => one.input[0]);
            }"""
        )
        assert both == [0, 200]  # each question has its own answer
        live = answer_to(page, lambda: page.get_by_role("button", name="Use the camera").click())
        assert np.argmax(live["outputs"]) == expected.argmax()
        assert np.abs(np.array(live["input"]) - pixels.ravel()).max() < 16  # the camera has fewer colors
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Use the camera").wait_for()
        assert page.evaluate("document.getElementById('video').srcObject.active") is False
        page.locator("#file").set_input_files(__file__)
        page.get_by_role("status").filter(has_text="is no picture").wait_for()


@needs_chromium
@pytest.mark.network
def test_sound_and_microphone_have_the_features_of_the_training(chromium, hosted, tone_file):
    folder, url = hosted
    shape = (1, *sounds.decode(tone_file, SPEECH).shape)
    weights = np.random.default_rng(0).normal(size=(np.prod(shape), 2)).astype("float32") / 100
    graph = tf.function(lambda x: tf.reshape(x, [1, -1]) @ weights, input_signature=[tf.TensorSpec(shape, tf.float32)])
    model = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph).convert()
    how = web_site.Preparation(sample_rate=RATE, features="log_mel")
    model = TFLiteModel.load(model)
    web_site.write(model, folder, litert_js.load(print), task="regression", labels=["a", "b"], preparation=how)
    features = sounds.decode(tone_file, SPEECH)[None]
    expected = targets.get("host").run(model, features, latency=False).outputs[0][0]
    with opened(chromium, url) as page:
        found = answer_to(page, lambda: page.locator("#file").set_input_files(tone_file))
        np.testing.assert_allclose(found["input"], features.ravel(), atol=2e-3)
        np.testing.assert_allclose(found["outputs"], expected, atol=2e-3)
        assert page.locator("#answers li span").all_inner_texts()[::2] == ["a", "b"]
        assert accessibility_faults(page) == []
        live = answer_to(page, lambda: page.get_by_role("button", name="Use the microphone").click())
        bands = np.reshape(live["input"], shape[1:3]).mean(axis=0)
        assert bands.argmax() == features[0, ..., 0].mean(axis=0).argmax()
        page.get_by_role("button", name="Stop").click()


@needs_chromium
def test_pictures_and_features_are_computed_as_for_the_training(chromium):
    rng = np.random.default_rng(0)
    with contextlib.closing(chromium.new_page()) as page:
        page.add_script_tag(content=(PAGE / "preprocess.js").read_text())
        for height, width in ((23, 31), (9, 40), (5, 4)):
            picture = rng.integers(0, 256, (height, width, 4), "uint8")
            ways = list(itertools.product(RESIZES, CROPS, (1, 3)))
            expected = [
                images.fitted(
                    picture[..., :3],
                    ReadingOptions(image_size=(8, 12), resize=resize, crop=crop, color={1: "gray", 3: "rgb"}[channels]),
                )
                for resize, crop, channels in ways
            ]
            hows = [
                {"height": 8, "width": 12, "channels": channels, "resize": resize, "crop": crop}
                for resize, crop, channels in ways
            ]
            sent = {"pixels": picture.ravel().tolist(), "height": height, "width": width}
            found = page.evaluate("([picture, hows]) => hows.map((how) => [...fitted(picture, how)])", [sent, hows])
            for one, right, way in zip(found, expected, ways, strict=True):
                assert one == right.ravel().tolist(), (height, width, way)
        wave = rng.normal(0, 0.1, 4000).astype("float32")
        for features in ({"features": "log_mel"}, {"features": "mfcc", "coefficients": 10}):
            options = ReadingOptions(sample_rate=8000, mel_bands=24, **features)
            how = {"samples": 4000, "features": sound_features.definition(options, 8000)}
            found = page.evaluate("([wave, how]) => [...features(Float32Array.from(wave), how)]", [wave.tolist(), how])
            computed = sound_features.compute("wave", wave, 8000, options)
            np.testing.assert_allclose(found, computed.ravel(), atol=1e-3)


def test_page_is_escaped_and_names_the_model_by_its_hash(digits_int8, tmp_path):
    library = litert_js.load(print, str(node_modules(tmp_path / "node_modules")))
    labels = ["</script><script>alert(1)</script>", *"123456789"]
    web_site.write(digits_int8, tmp_path / "site", library, labels=labels, title="<i>")
    page = (tmp_path / "site/index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;i&gt;" in page
    assert (tmp_path / f"site/model-{digits_int8.sha256[:12]}.tflite").read_bytes() != b""
    assert "connect-src 'self'" in page
    assert not re.search(r"""(src|href)=["'](?!data:|[\w.]+["'])""", page)


def test_labels_on_the_command_line_may_be_longer_than_a_file_name(digits_int8, tmp_path):
    names = [f"{number} {'long ' * 20}name" for number in range(10)]
    arguments = ("export-web", digits_int8.path, "--out", tmp_path / "site", "--labels", ",".join(names), "--json")
    library = node_modules(tmp_path / "node_modules")
    done = CliRunner().invoke(cli.app, [*map(str, arguments), "--litert-js", str(library)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["labels"] == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "labels must be 10 names"),
        ({"task": "binary"}, "needs a model with one output"),
        ({"task": "segmentation"}, "task must be one of classification, binary, multi_label, regression"),
        ({"preparation": web_site.Preparation(resize="cubic")}, "resize must be one of"),
        ({"preparation": web_site.Preparation(input_range=(1, 1))}, "two different numbers"),
        ({"preparation": web_site.Preparation(input_range=(0, math.nan))}, "two different numbers"),
        ({"preparation": web_site.Preparation(input_range=(-128, 128))}, "50% of the range would be clipped"),
        ({"preparation": web_site.Preparation(input_range=(0, 1))}, "would become at most 2 values"),
        ({"preparation": web_site.Preparation(sample_rate=16_000)}, "samples of a sound"),
        ({"preparation": web_site.Preparation(sample_rate=16_000, hop_ms=math.inf)}, "hop_ms must be numbers"),
        ({"preparation": web_site.Preparation(sample_rate=1)}, "sample_rate must be"),
        ({"preparation": web_site.Preparation(sample_rate=16_000, features="mel")}, "features must be one of"),
    ],
    ids=(
        *("labels", "binary", "task", "resize", "range", "infinite", "clipped", "narrow"),
        *("waveform", "hop", "rate", "features"),
    ),
)
def test_wrong_options_are_refused(digits_int8, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        web_site.write(digits_int8, tmp_path / "site", litert_js.Library("", {}), **options)
    assert not list(tmp_path.iterdir())


def test_models_of_several_ends_or_with_a_state_are_refused(several_ends, resource_states, tmp_path):
    with pytest.raises(ModelError, match="one input and one output"):
        web_site.write(several_ends[0], tmp_path / "site", litert_js.Library("", {}))
    with pytest.raises(ModelError, match="keep a state"):
        web_site.write(resource_states[0], tmp_path / "site", litert_js.Library("", {}))


def test_waveform_may_have_no_batch_axis(digits_int8, tmp_path):
    """As the input of YAMNet, [15600]."""
    editor = ModelEditor(digits_int8.content)
    editor.tensors[int(editor.graph.inputs[0])].shape = np.array([15600], "int32")
    how = web_site.Preparation(sample_rate=16_000)
    web_site.write(TFLiteModel.load(editor.pack()), tmp_path / "site", litert_js.Library("", {}), preparation=how)
    settings = re.search(r'id="settings">(.*?)</script>', (tmp_path / "site/index.html").read_text())
    assert json.loads(settings[1])["sound"] == {"sample_rate": 16_000, "samples": 15_600, "features": None}


def test_output_that_is_no_vector_is_refused(digits_int8, tmp_path):
    editor = ModelEditor(digits_int8.content)
    editor.tensors[int(editor.graph.outputs[0])].shape = np.array([1, 5, 2], "int32")
    with pytest.raises(ModelError, match="no boxes, masks or points"):
        web_site.write(TFLiteModel.load(editor.pack()), tmp_path / "site", litert_js.Library("", {}))


def test_only_a_folder_that_it_wrote_is_replaced(digits_int8, tmp_path):
    folder, library = tmp_path / "home", litert_js.Library("2", {})
    folder.mkdir()
    (folder / "letter.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="already exists|which would be deleted"):
            web_site.write(digits_int8, folder, library, overwrite=overwrite)
    assert (folder / "letter.txt").read_text() == "mine"
    web_site.write(digits_int8, tmp_path / "site", library)
    web_site.write(digits_int8, tmp_path / "site", library, title="Second", overwrite=True)
    assert "Second" in (tmp_path / "site/index.html").read_text()
