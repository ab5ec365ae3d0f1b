"""Two worker processes on the loopback interface compute the same as one process with the whole batch."""

import re
import socket
import textwrap

import numpy as np
import pytest
from typer.testing import CliRunner

from tfkd import cli

pytestmark = pytest.mark.slow

WORKER = """
    import json, os, sys

    rank, ports, out = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
    if len(ports) > 1:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})
    import keras, numpy as np, tensorflow as tf
    import tfkd

    def net(units):
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        inner = keras.layers.Dense(units, kernel_regularizer="l2", activity_regularizer="l2")
        return keras.Sequential([keras.Input((8, 8, 1)), *layers, inner, keras.layers.Dense(10)])

    strategy = tf.distribute.MultiWorkerMirroredStrategy() if len(ports) > 1 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    train = tfkd.data.load("digits").train.sample(512)
    with strategy.scope():
        distiller = tfkd.Distiller(net(8), net(32))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=["accuracy"])
    batches = train.batches(64, shuffle=True).map(lambda x, y: (x, y, 0.5 + tf.cast(y, "float32") / 10))
    history = distiller.fit(batches, epochs=3, verbose=0).history
    weights = {f"w{i}": w for i, w in enumerate(distiller.student.get_weights())}
    np.savez(out, **weights, **{name: np.array(values) for name, values in history.items()})
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ",".join(ports)


def finish(running):
    """Waits for all processes, which must end well."""
    try:
        for process in running:
            printed = process.communicate()
            assert process.returncode == 0, printed
    finally:
        for process in running:
            process.kill()


@pytest.fixture(scope="module")
def results(tmp_path_factory, forks):
    folder = tmp_path_factory.mktemp("workers")
    files = [folder / "one.npz", folder / "first.npz", folder / "second.npz"]
    ports = free_ports(2)
    workers = [(0, "0"), (0, ports), (1, ports)]
    finish([forks.start(textwrap.dedent(WORKER), *worker, file) for worker, file in zip(workers, files, strict=True)])
    return [dict(np.load(file)) for file in files]


def test_workers_have_equal_weights_after_training(results):
    _, first, second = results
    for name in (name for name in first if name.startswith("w")):
        np.testing.assert_array_equal(second[name], first[name])


def test_workers_compute_the_same_as_one_process(results):
    one, first, _ = results
    assert set(first) == set(one)
    for name, expected in one.items():
        np.testing.assert_allclose(np.ravel(first[name]), np.ravel(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.campaign  # the test before it trains on two processes too
def test_script_of_distill_workers_trains_on_two_processes(tmp_path, forks):
    import tfkd

    text = CliRunner().invoke(cli.app, ["distill", "--workers"]).stdout
    script, command = text[text.index("import keras") :].split("\n\nStart it")
    script = script.replace("epochs=20", "epochs=1")
    train = tfkd.data.load("digits").train
    tfkd.models.build("digits_teacher", train.input_shape, train.num_classes).save(tmp_path / "teacher.keras")
    first, second = free_ports(2).split(",")
    environment = re.search(r"TF_CONFIG='(.*)'", command)[1]
    environment = environment.replace("first:2222", f"localhost:{first}").replace("second:2222", f"localhost:{second}")
    first_lines = 'import os, sys; os.environ["TF_CONFIG"] = sys.argv[1]\n'
    clusters = [environment.replace('"index": 0', f'"index": {index}') for index in (0, 1)]
    finish([forks.start(first_lines + script, cluster, cwd=tmp_path) for cluster in clusters])
    assert tfkd.models.load(tmp_path / "student.keras").count_params() > 0
