"""Folders and manifests of sound files."""

import json
import logging

import numpy as np
import pytest
import soundfile

from tfkd import data
from tfkd.data import sound_features, sounds
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError


def tone(path, hz=440.0, *, rate=8000, seconds=0.5, channels=1):
    """A sound file of a sine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sine = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)
    soundfile.write(path, np.stack([sine] * channels, axis=1), rate)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes of four tones each, in three formats."""
    for label, hz in (("low", 300.0), ("high", 1200.0)):
        for number, suffix in enumerate(("wav", "flac", "ogg", "WAV")):
            tone(tmp_path / label / f"{number}.{suffix}", hz + number)
    return tmp_path


def test_sounds_of_a_folder_are_samples_and_their_folders_classes(folder):
    splits = data.load(folder, validation=0)
    assert splits.train.input_shape == (4000, 1)
    assert splits.train.class_names == ("high", "low")
    for split in splits:
        for x, y in zip(split.x, split.y, strict=True):
            peak = np.abs(np.fft.rfft(x[:, 0])).argmax() * 8000 / 4000
            assert peak == pytest.approx((1200, 300)[y], abs=5)
            assert np.abs(x).max() == pytest.approx(0.5, abs=0.02)


def test_sound_is_mixed_resampled_and_padded(tmp_path):
    file = tone(tmp_path / "a.wav", 500.0, rate=44_100, seconds=0.4, channels=2)
    x = sounds.decode(file, ReadingOptions(sample_rate=16_000, seconds=0.5))
    assert x.shape == (8000, 1)
    expected = 0.5 * np.sin(2 * np.pi * 500 * np.arange(6400) / 16_000)
    np.testing.assert_allclose(x[100:6300, 0], expected[100:6300], atol=0.01)
    assert not x[6400:].any()
    assert sounds.decode(file, ReadingOptions(seconds=0.1)).shape == (4410, 1)


def test_log_mel_features_are_those_of_tensorflow(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-0.5, 0.5, 16_000), 16_000, subtype="FLOAT")
    options = ReadingOptions(features="log_mel", mel_bands=32, frame_ms=25, hop_ms=10)
    features = sounds.decode(tmp_path / "a.wav", options)
    sound = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    spectrum = tf.signal.stft(sound, 400, 160, 512, window_fn=tf.signal.hann_window)
    matrix = tf.signal.linear_to_mel_weight_matrix(32, 257, 16_000, 20.0, 8000.0)
    expected = tf.math.log(tf.abs(spectrum) ** 2 @ matrix + 1e-6)
    assert features.shape == (98, 32, 1)
    np.testing.assert_allclose(features[..., 0], expected, atol=2e-2)
    how = sound_features.definition(options, 16_000)
    assert (how["frame"], how["hop"], how["fft"], how["bands"]) == (400, 160, 512, 32)
    assert json.loads(json.dumps(how)) == how


@pytest.mark.parametrize(("bands", "coefficients"), [(40, 13), (32, 32), (10, 1)])
def test_mfcc_are_those_of_tensorflow(tmp_path, bands, coefficients):
    import tensorflow as tf

    tone(tmp_path / "a.wav", 700.0, rate=16_000)
    log_mel, mfcc = (
        sounds.decode(tmp_path / "a.wav", ReadingOptions(features="log_mel", mel_bands=bands)),
        sounds.decode(tmp_path / "a.wav", ReadingOptions(features="mfcc", mel_bands=bands, coefficients=coefficients)),
    )
    expected = tf.signal.mfccs_from_log_mel_spectrograms(log_mel[..., 0])[:, :coefficients]
    assert mfcc.shape == (24, coefficients, 1)
    np.testing.assert_allclose(mfcc[..., 0], expected, atol=1e-4)


def test_definition_of_mfcc_names_its_transform():
    how = sound_features.definition(ReadingOptions(features="mfcc", coefficients=10), 16_000)
    assert (how["kind"], how["coefficients"], how["bands"], how["liftering"]) == ("mfcc", 10, 40, "none")
    assert how["dct"].startswith("type 2: sqrt(2 / bands)")
    assert "coefficients" not in sound_features.definition(ReadingOptions(features="log_mel"), 16_000)


def test_manifest_of_sounds_is_read(folder):
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.*"))]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    splits = data.load(folder / "list.csv", validation=0, features="log_mel")
    assert splits.train.input_shape == (24, 40, 1)


def test_large_data_set_of_sounds_is_decoded_when_it_is_used(folder, monkeypatch):
    small = data.load(folder, validation=0).train
    monkeypatch.setattr(data.lazy, "IN_MEMORY_BYTES", 100)
    train = data.load(folder, validation=0).train
    assert isinstance(train.x, data.lazy.LazySamples)
    np.testing.assert_array_equal(train.x[:], small.x)
    assert [x.shape for x, _ in train.batches(4)][0] == (4, 4000, 1)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda path: path.write_bytes(b"RIFF"), {}, r"1\.flac must be a readable WAV, FLAC or OGG"),
        (lambda path: tone(path, seconds=0.4), {}, r"1\.flac must have the length of .*, 4000. Received: 3200"),
        (lambda path: tone(path, rate=4000, seconds=1.0), {}, r"1\.flac must have the sample rate of .*8000 Hz"),
        (lambda path: tone(path, seconds=0.01), {"features": "log_mel"}, r"must have one frame of 30 ms"),
        (lambda path: None, {"image_size": (8, 8)}, "image_size has no meaning for"),
        (lambda path: None, {"mel_bands": 20}, "mel_bands is an option of mfcc and log_mel"),
        (lambda path: None, {"coefficients": 9, "features": "log_mel"}, "coefficients is an option of mfcc"),
        (lambda path: None, {"features": "mfcc", "mel_bands": 10}, "coefficients must be at most mel_bands, 10"),
        (lambda path: None, {"seconds": 0.0}, "seconds must be > 0"),
        (lambda path: None, {"features": "plp"}, "features must be one of none, log_mel, mfcc"),
    ],
)
def test_wrong_sound_or_option_is_refused(folder, change, options, message):
    change(folder / "low" / "1.flac")
    with pytest.raises(InputError, match=message):
        data.load(folder, validation=0, **options)


def test_broken_sounds_are_left_out_and_counted(folder, caplog):
    (folder / "low" / "1.flac").write_bytes(b"fLaC")
    with caplog.at_level(logging.WARNING, "tfkd"):
        splits = data.load(folder, validation=0, skip_broken=True)
    assert sum(map(len, splits)) == 7
    assert "sounds that cannot be read are left out (1): low/1.flac" in caplog.text


def test_floats_beyond_one_are_clipped_and_other_units_refused(tmp_path):
    sine = np.sin(np.arange(8000) / 3)
    soundfile.write(tmp_path / "loud.wav", 1.5 * sine, 8000, subtype="FLOAT")
    np.testing.assert_allclose(
        sounds.decode(tmp_path / "loud.wav", ReadingOptions())[:, 0], np.clip(1.5 * sine, -1, 1), atol=1e-6
    )
    square = np.sign(sine)  # a filter that resamples exceeds its ends
    soundfile.write(tmp_path / "square.wav", square, 8000, subtype="PCM_16")
    assert np.abs(sounds.decode(tmp_path / "square.wav", ReadingOptions(sample_rate=16_000))).max() == 1
    soundfile.write(tmp_path / "integers.wav", 32_768 * sine, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"integers.wav must have samples in -1..1. Received: 327\d\d"):
        sounds.decode(tmp_path / "integers.wav", ReadingOptions())


def test_channels_that_cancel_each_other_are_a_warning_once_a_folder(tmp_path, caplog):
    sine = np.sin(np.arange(800) / 3)
    for name, channels in (("a", (sine, -sine)), ("b", (sine, -sine)), ("c", (sine, 0 * sine)), ("d", (0 * sine,) * 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 8000)
        sounds.decode(tmp_path / f"{name}.wav", ReadingOptions())
    assert [one.split(": ")[0] for one in caplog.messages] == [str(tmp_path / "a.wav")]


def test_noise_to_mix_in_is_no_class(folder, caplog):
    tone(folder / "_background_noise_/hum.wav", seconds=3)
    assert data.load(folder, validation=0).train.class_names == ("high", "low")
    assert any("skipped (1): _background_noise_/hum.wav" in message for message in caplog.messages)


def test_sound_that_was_cut_off_is_refused(tmp_path):
    """Its rest would be padded with silence; libsndfile reads what is there."""
    file = tone(tmp_path / "a.wav")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.wav must be complete. Received: a file whose last 50 % are missing"):
        sounds.decode(file, ReadingOptions())
    for length in (0, 0xFFFFFFFF, len(whole)):  # written to a stream, or wrong by some bytes
        file.write_bytes(whole[:4] + length.to_bytes(4, "little") + whole[8:])
        assert sounds.decode(file, ReadingOptions()).shape == (4000, 1)
