"""An exported model, asked as clients of TensorFlow Serving ask: over gRPC, in its messages."""

import contextlib
import re
from concurrent import futures
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from augmix_tf.export.saved_model import WARMUP, export
from tests.image_files import encoded, png_header

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
apis = "tensorflow_serving.apis"
needs = "tensorflow-serving-api is not installed"
predict_pb2 = pytest.importorskip(f"{apis}.predict_pb2", reason=needs)
prediction_log_pb2 = pytest.importorskip(f"{apis}.prediction_log_pb2", reason=needs)
services = pytest.importorskip(f"{apis}.prediction_service_pb2_grpc", reason=needs)

HEIGHT, WIDTH = 6, 5
NAMES = ["cat", "dög", "owl"]


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), *layers])


@pytest.fixture(scope="module")
def version(classifier, tmp_path_factory):
    return export(classifier, NAMES, tmp_path_factory.mktemp("run"), temperature=2.0).version


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)


class Service(services.PredictionServiceServicer):
    """The part of TensorFlow Serving that answers `Predict`, for one loaded version."""

    def __init__(self, version):
        self.model = tf.saved_model.load(str(version))

    def Predict(self, request, context):  # noqa: N802 - the protocol's name
        signature = self.model.signatures.get(request.model_spec.signature_name)
        if signature is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unknown signature")
        try:
            inputs = {name: tf.make_ndarray(t) for name, t in request.inputs.items()}
            outputs = signature(**{name: tf.constant(x) for name, x in inputs.items()})
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        for name, tensor in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor))
        return response


@pytest.fixture(scope="module")
def address(version):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    services.add_PredictionServiceServicer_to_server(Service(version), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def stub(address):
    with contextlib.closing(grpc.insecure_channel(address)) as channel:
        yield services.PredictionServiceStub(channel)


def ask(stub, signature, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "any"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    outputs = stub.Predict(request, timeout=60).outputs
    return {name: tf.make_ndarray(tensor) for name, tensor in outputs.items()}


def check_answers(out, classifier, images):
    logits = classifier(images.astype(np.float32)).numpy()
    np.testing.assert_allclose(out["logits"], logits, atol=1e-5)
    want = keras.ops.softmax(logits / 2.0)
    np.testing.assert_allclose(out["probabilities"], want, atol=1e-5)
    np.testing.assert_array_equal(out["classes"], logits.argmax(axis=1))
    assert [n.decode() for n in out["class_names"]] == [NAMES[i] for i in logits.argmax(axis=1)]


def test_the_client_of_the_page_gets_an_answer(
    address, classifier, images, tmp_path, monkeypatch, capsys
):
    page = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
    code = next(c for c in re.findall(r"```py\n(.*?)```", page.read_text(), re.S) if "grpc" in c)
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(encoded(images[0]))
    scope = {}
    exec(compile(code.replace("localhost:8500", address), page.name, "exec"), scope)
    check_answers(scope["outputs"], classifier, images[:1])
    name = NAMES[scope["outputs"]["classes"][0]].encode()
    assert capsys.readouterr().out.startswith(f"[{name}] [")


def test_unreadable_files_over_grpc_leave_the_server_up(stub, classifier, images):
    unreadable = [b"", b"text", png_header(60_000, 60_000), encoded(images[0], "jpeg")[:-30]]
    out = ask(stub, "serve_bytes", image_bytes=[*unreadable, encoded(images[1])])
    want = ["unknown format", "unknown format", "too large", "cannot be decoded", ""]
    assert [error.decode() for error in out["errors"]] == want
    assert list(out["classes"][:4]) == [-1] * 4
    check_answers({k: v[4:] for k, v in out.items()}, classifier, images[1:2])


def test_empty_batches_over_grpc(stub):
    out = ask(stub, "serving_default", images=np.zeros((0, HEIGHT, WIDTH, 3), np.uint8))
    assert out["logits"].shape == out["probabilities"].shape == (0, 3)
    no_files = tf.constant([], tf.string)
    assert ask(stub, "serve_bytes", image_bytes=no_files)["errors"].shape == (0,)


def test_the_warm_up_file_is_replayed(stub, version):
    records = tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    asked = [log.predict_log.request for log in logs]
    assert [r.model_spec.signature_name for r in asked] == ["serving_default", "serve_bytes"]
    answers = [stub.Predict(request, timeout=60).outputs for request in asked]
    first, second = (tf.make_ndarray(outputs["logits"]) for outputs in answers)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)  # the same image, once as a file
    assert list(tf.make_ndarray(answers[1]["errors"])) == [b""]
