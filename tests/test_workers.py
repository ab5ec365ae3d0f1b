"""Two real worker processes on loopback train as one process with the joint batch."""

import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

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
        return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(units), keras.layers.Dense(10)])

    strategy = tf.distribute.MultiWorkerMirroredStrategy() if len(ports) > 1 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    train = tfkd.data.load("digits").train.sample(512)
    with strategy.scope():
        distiller = tfkd.Distiller(net(8), net(32))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=["accuracy"])
    history = distiller.fit(train.batches(64, shuffle=True), epochs=3, verbose=0).history
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


def start(rank, ports, out):
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(rank), ports, str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    files = [folder / "one.npz", folder / "first.npz", folder / "second.npz"]
    ports = free_ports(2)
    running = [start(0, "0", files[0]), start(0, ports, files[1]), start(1, ports, files[2])]
    try:
        for process in running:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [dict(np.load(file)) for file in files]


def test_workers_end_with_equal_weights(results):
    _, first, second = results
    for name in (name for name in first if name.startswith("w")):
        np.testing.assert_array_equal(second[name], first[name])


def test_workers_learn_as_one_process_does_with_the_joint_batch(results):
    one, first, _ = results
    assert set(first) == set(one)
    for name, expected in one.items():
        np.testing.assert_allclose(np.ravel(first[name]), np.ravel(expected), rtol=1e-4, atol=1e-5)
