import itertools
import math

import numpy as np
import pytest

from augmix_tf import metrics, robustness
from augmix_tf.errors import ArgumentError, RunError
from augmix_tf.metrics import benchmarks
from tests import golden
from tests.oracles import loop_metrics as loops
from tests.processes import python

CALIBRATION_CASES = ("n1000", "n1037", "n250", "n100")
SEQUENCE_CASES = ("k10_t31", "k10_t21", "k10_t16_stable", "k10_t31_ties", "k100_t31", "k1000_t31")


def toy_logits(count=57, classes=6, scale=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) * scale
    logits[np.arange(count), labels] += scale
    return logits, labels


def toy_errors(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 0.9, 5) for name in robustness.CORRUPTIONS}


def test_classification_equals_loops():
    logits, labels = toy_logits()
    probabilities = [loops.softmax(row) for row in logits]
    got = metrics.ClassificationSums().update(logits, labels).compute()
    assert got["error"] == loops.error_rate(logits, labels)
    assert got["nll"] == pytest.approx(loops.negative_log_likelihood(logits, labels), rel=1e-12)
    assert got["brier"] == pytest.approx(loops.brier_score(probabilities, labels), rel=1e-12)
    assert metrics.error_rate(logits, labels) == got["error"]
    assert metrics.negative_log_likelihood(logits, labels) == got["nll"]
    assert metrics.brier_score(probabilities, labels) == pytest.approx(got["brier"], rel=1e-12)


@pytest.mark.parametrize("sizes", [(20, 20, 17), (0, 57)])
def test_sums_do_not_depend_on_the_batches(sizes):
    logits, labels = toy_logits()
    whole = metrics.ClassificationSums().update(logits, labels)
    parts, start = metrics.ClassificationSums(), 0
    for size in sizes:
        parts = parts.update(logits[start : start + size], labels[start : start + size])
        start += size
    assert (parts.count, parts.wrong) == (whole.count, whole.wrong)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_huge_logits_stay_finite():
    logits = np.array([[1e30, -1e30, 0.0], [0.0, 800.0, -800.0]])
    got = metrics.ClassificationSums().update(logits, [0, 0]).compute()
    assert got == {"error": 0.5, "nll": 400.0, "brier": 1.0}
    np.testing.assert_array_equal(metrics.log_softmax([1e30, 1e30]), [-math.log(2.0)] * 2)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, 2.0], [0], r"Expected scores \[N, K\]; received \(2,\)"),
        ([[1.0, 2.0]], [0, 1], r"Expected 1 labels, one for each row; received \(2,\)"),
        ([[1.0, 2.0]], [2], r"Expected labels of 0 to 1; received \[2\]"),
        ([[1.0, 2.0]], [-1], r"Expected labels of 0 to 1; received \[-1\]"),
        ([[1.0, 2.0]], [0.0], "Expected labels of integers; received float64"),
        (np.zeros((0, 2)), [], "Expected at least one example; received 0"),
        ([[1.0], [1.0]], [0, 0], "Expected scores of at least 2 classes; received 1"),
    ],
)
def test_classification_refuses(logits, labels, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.error_rate(logits, labels)
    with pytest.raises(ArgumentError, match=message):
        metrics.brier_score(logits, labels)


def test_diverged_logits_are_a_failed_run():
    with pytest.raises(RunError, match=r"Expected finite scores; received \[nan +0.\] in row 1"):
        metrics.error_rate([[1.0, 2.0], [math.nan, 0.0]], [0, 0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.5, -0.5], "Expected probabilities of 0 or more; received -0.5"),
        ([0.5, 0.4], "sum 1 .* received 0.9"),
    ],
)
def test_brier_refuses_what_is_no_distribution(row, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.brier_score([[0.5, 0.5], row], [0, 0])


@pytest.mark.parametrize("case", CALIBRATION_CASES)
def test_calibration_equals_golden(case):
    data = golden.load("calibration")

    def want(item):
        return pytest.approx(data[f"{case}/{item}"].item(), rel=1e-9, abs=1e-15)

    confidence, correct = data[f"{case}/confidence"], data[f"{case}/correct"]
    assert metrics.rms_calibration_error(confidence, correct) == want("rms_all_bins")
    if len(confidence) >= 200:
        without_last = metrics.rms_calibration_error(confidence, correct, drop_last_bin=True)
        assert without_last == want("rms_drop_last_bin")
    assert metrics.expected_calibration_error(confidence, correct) == want("ece15")

    logits, labels = data[f"{case}/logits"], data[f"{case}/labels"]
    own_confidence, own_correct = metrics.top1_confidence(logits, labels)
    np.testing.assert_allclose(own_confidence, confidence, rtol=1e-9)
    np.testing.assert_array_equal(own_correct, correct)
    probabilities = np.exp(metrics.log_softmax(logits))
    assert metrics.brier_score(probabilities, labels) == want("brier_multiclass")
    assert metrics.negative_log_likelihood(logits, labels) == want("nll")
    assert metrics.error_rate(logits, labels) == want("error")


@pytest.mark.parametrize("count", [1, 7, 10, 19, 20, 45])
@pytest.mark.parametrize("drop_last_bin", [False, True])
def test_calibration_equals_loops(count, drop_last_bin):
    rng = np.random.default_rng(count)
    # Tenths: many ties, and confidences on the edges of ten bins.
    confidence = rng.integers(0, 11, count) / 10
    correct = rng.uniform(size=count) < confidence
    if count >= 20 or not drop_last_bin:
        got = metrics.rms_calibration_error(confidence, correct, 10, drop_last_bin)
        want = loops.rms_calibration_error(confidence, correct, 10, drop_last_bin)
        assert got == pytest.approx(want, rel=1e-12)
    for bins in (1, 10, 15):
        got = metrics.expected_calibration_error(confidence, correct, bins)
        want = loops.expected_calibration_error(confidence, correct, bins)
        assert got == pytest.approx(want, rel=1e-12, abs=1e-15)
    assert metrics.aurra(confidence, correct) == pytest.approx(loops.aurra(confidence, correct))


def test_calibration_does_not_depend_on_the_order_of_the_examples():
    rng = np.random.default_rng(0)
    confidence = rng.integers(5, 11, 300) / 10
    correct = rng.uniform(size=300) < confidence
    for measure in (
        metrics.aurra,
        metrics.rms_calibration_error,
        lambda sure, right: metrics.rms_calibration_error(sure, right, 7, drop_last_bin=True),
    ):
        orders = [rng.permutation(300) for _ in range(20)]
        values = {measure(confidence[order], correct[order]) for order in orders}
        assert values == {measure(confidence, correct)}


@pytest.mark.parametrize(("count", "bin_size"), [(1, 1), (199, 100)])
def test_the_only_bin_is_not_dropped(count, bin_size):
    message = f"Expected {2 * bin_size} or more examples .* received {count}"
    with pytest.raises(ArgumentError, match=message):
        metrics.rms_calibration_error([0.5] * count, [1] * count, bin_size, drop_last_bin=True)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], r"Expected confidence \[N\], N of 1 or more; received \(0,\)"),
        ([0.5], [1, 0], r"Expected correct \[1\]; received \(2,\)"),
        ([0.5, 97.0], [1, 0], r"Expected confidence of 0 to 1; received \[97.\]"),
        ([math.nan], [1], r"Expected confidence of 0 to 1; received \[nan\]"),
        ([0.5], [3], r"Expected correct of 0 or 1; received \[3.\]"),
    ],
)
def test_calibration_refuses(confidence, correct, message):
    for measure in (
        metrics.rms_calibration_error,
        metrics.expected_calibration_error,
        metrics.aurra,
    ):
        with pytest.raises(ArgumentError, match=message):
            measure(confidence, correct)


def test_temperature_by_hand():
    # Right with odds of 3 to 1 at a margin of 2: best where margin / T = ln 3.
    logits, labels = [[2.0, 0.0]] * 4, [0, 0, 0, 1]
    assert metrics.fit_temperature(logits, labels) == pytest.approx(2 / math.log(3), rel=1e-5)


@pytest.mark.parametrize("factor", [2.0**-100, 1e-3, 1e4, 2.0**100])
def test_temperature_scales_with_the_logits(factor):
    logits, labels = toy_logits(count=100)
    want = factor * metrics.fit_temperature(logits, labels)
    assert metrics.fit_temperature(logits * factor, labels) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 0], [1, 0, 1]], ids=["all right", "all wrong"])
def test_temperature_stays_bounded_where_none_is_best(labels):
    logits = np.array([[9.0, 0.0], [0.0, 5.0], [40.0, 0.0]])
    temperature = metrics.fit_temperature(logits, labels)
    spread = math.sqrt(np.var(logits, axis=1).mean())
    assert spread / 100 <= temperature <= spread * 100
    assert (temperature < 1.0) == (labels[0] == 0)


def test_temperature_of_logits_that_say_nothing_is_one():
    assert metrics.fit_temperature([[3.0, 3.0], [5.0, 5.0]], [0, 1]) == 1.0
    with pytest.raises(ArgumentError, match="Expected at least one example"):
        metrics.fit_temperature(np.zeros((0, 2)), [])


def test_corruption_errors_of_a_published_network():
    # RobustBench's AugMix ResNet-50 (5,000 images), per corruption: its table says 50.67, 64.17.
    # fmt: off
    percent = [55.2, 54.4, 56.3, 51.9, 64.9, 46.4, 50.5, 60.5, 57.6, 52.8, 30.8, 48.7, 47.9, 42.4,
               39.8]
    # fmt: on
    errors = {n: p / 100 for n, p in zip(robustness.CORRUPTIONS, percent, strict=True)}
    assert metrics.unnormalized_corruption_error(errors) == pytest.approx(0.5067, abs=1e-4)
    assert metrics.alexnet_corruption_error(errors) == pytest.approx(64.17, abs=0.01)


def test_alexnet_compared_with_itself_is_one_hundred():
    errors = robustness.ALEXNET_ERRORS
    assert metrics.alexnet_corruption_error(errors) == pytest.approx(100.0)
    assert metrics.mean_corruption_error(errors, errors) == pytest.approx(100.0)
    clean = robustness.ALEXNET_CLEAN_ERROR
    assert metrics.relative_corruption_error(errors, clean) == pytest.approx(100.0)


# Errors (%) of two ResNet-50s, means over severities: rn50augmix and rn50baseline of
# nis-research/afa-augment, commit 7dcf705; on -3DCC RobustBench's AugMix, commit 78fcc9e.
# fmt: off
PUBLISHED = {
    "augmix": [59.4032, 58.8724, 62.3044, 52.2512, 65.1148, 46.4892, 50.9928, 60.1152, 56.2276,
               52.8888, 30.5272, 48.908, 48.0284, 43.0336, 39.7308],
    "standard": [70.708, 72.9676, 76.1884, 61.2528, 73.2232, 61.3316, 63.7556, 67.4732, 61.8588,
                 54.1552, 31.9792, 60.942, 54.7492, 55.2108, 46.5872],
    "augmix, cbar": [40.5076, 76.8928, 48.2336, 74.4404, 63.8464, 43.444, 34.662, 33.5668, 78.38,
                     40.808],
    "augmix, 3dcc": [36.388, 42.096, 50.876, 37.692, 58.588, 52.364, 33.752, 28.26, 54.424,
                     49.12, 56.64, 58.028],
}
# fmt: on


@pytest.mark.parametrize(
    ("row", "alexnet", "mce"),
    [
        ("augmix", robustness.ALEXNET_ERRORS, 65.3),
        ("standard", robustness.ALEXNET_ERRORS, 76.7),
        ("augmix, cbar", robustness.ALEXNET_CBAR_ERRORS, 70.890),
        ("augmix, 3dcc", robustness.ALEXNET_3DCC_ERRORS, 64.64),
    ],
)
def test_published_errors_have_the_published_mce(row, alexnet, mce):
    errors = {n: p / 100 for n, p in zip(alexnet, PUBLISHED[row], strict=True)}
    digits = len(str(mce).partition(".")[2])
    assert round(metrics.mean_corruption_error(errors, alexnet), digits) == mce


# Flip probability and top-5 distance, in the order of the perturbations; the same source.
# fmt: off
PUBLISHED_RATES = {
    "augmix": (
        [0.0967686667, 0.1136186667, 0.0278886667, 0.0325253333, 0.04454, 0.022572, 0.029641,
         0.0423126667, 0.02565, 0.07946],
        [2.9835673333, 3.3864586667, 0.9779086667, 0.9700606667, 1.2857226667, 0.7914266667,
         1.1314965, 1.5068026667, 0.9904273333, 2.2689233333],
    ),
    "standard": (
        [0.140392, 0.1738566667, 0.0599993333, 0.0428486667, 0.0753846667, 0.0302686667,
         0.0486685, 0.067942, 0.0400993333, 0.11318],
        [3.923604, 4.5467946667, 1.627552, 1.196662, 1.9470866667, 0.998216, 1.6841515,
         2.154554, 1.398552, 3.0117086667],
    ),
}
# fmt: on


@pytest.mark.parametrize(
    ("row", "flip_rate", "distance"), [("augmix", 37.6, 56.6), ("standard", 58.0, 78.4)]
)
def test_published_rates_have_the_published_means(row, flip_rate, distance):
    names, alexnet = robustness.PERTURBATIONS, robustness.ALEXNET_RATES
    flips, moved = (dict(zip(names, values, strict=True)) for values in PUBLISHED_RATES[row])
    got = metrics.mean_flip_rate(flips, alexnet["flip_probability"])
    assert round(got, 1) == flip_rate
    assert round(metrics.mean_top5_distance(moved, alexnet["top5_distance"]), 1) == distance


def test_corruption_errors_by_hand():
    errors = {"fog": [0.1, 0.3], "snow": 0.5}
    baseline = {"snow": [0.4, 0.6], "fog": 0.8}
    assert metrics.mean_corruption_error(errors) == pytest.approx(0.35)
    # Mean over severities first, then the ratio (0.2 / 0.8 and 0.5 / 0.5), then the mean.
    assert metrics.mean_corruption_error(errors, baseline) == pytest.approx(62.5)
    relative = metrics.relative_corruption_error(errors, 0.1, baseline, 0.3)
    assert relative == pytest.approx(100 * (0.1 / 0.5 + 0.4 / 0.2) / 2)
    only_fog = metrics.unnormalized_corruption_error({"fog": [0.1, 0.3]}, names=["fog"])
    assert only_fog == pytest.approx(0.2)


@pytest.mark.parametrize(
    "measure", [metrics.unnormalized_corruption_error, metrics.alexnet_corruption_error]
)
def test_corruption_errors_refuse_wrong_names(measure):
    errors = toy_errors()
    frost = errors.pop("frost")
    with pytest.raises(ArgumentError, match=r"Expected every corruption of gaussian.* without"):
        measure(errors)
    with pytest.raises(ArgumentError, match=r"Unknown corruption 'frots'\. Did you mean 'frost'"):
        measure({**errors, "frots": frost})
    with pytest.raises(ArgumentError, match="Unknown corruption 'spatter'"):
        measure({**errors, "frost": frost, "spatter": frost})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (26.5, r"Expected error on fog of 0 to 1; received \[26.5\]"),
        ([0.1, math.nan], "Expected error on fog of 0 to 1"),
        ([], r"Expected error on fog \[severities\] or one number; received \(0,\)"),
        ([[0.1]], r"Expected error on fog \[severities\] or one number; received \(1, 1\)"),
    ],
)
def test_corruption_errors_refuse_wrong_values(value, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.mean_corruption_error({"fog": value})


def test_corruption_errors_refuse_useless_baselines():
    with pytest.raises(ArgumentError, match="Expected at least one corruption; received none"):
        metrics.mean_corruption_error({})
    with pytest.raises(ArgumentError, match="Expected baseline error above 0; received 0"):
        metrics.mean_corruption_error({"fog": 0.1}, {"fog": 0.0})
    with pytest.raises(ArgumentError, match="Expected baseline errors above the baseline's"):
        metrics.relative_corruption_error({"fog": 0.1}, 0.05, {"fog": 0.4}, 0.4)
    with pytest.raises(ArgumentError, match="Expected clean error of 0 to 1; received 5"):
        metrics.relative_corruption_error({"fog": 0.1}, 5, {"fog": 0.4}, 0.2)


@pytest.mark.parametrize("case", SEQUENCE_CASES)
@pytest.mark.parametrize("kind", ["noise", "other"])
@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_perturbation_metrics_equal_golden(case, kind, difficulty):
    data = golden.load("p_metrics")
    logits, is_noise = data[f"{case}/logits"], kind == "noise"
    want = {
        "flip_probability": data[f"{case}/{kind}_d{difficulty}_flip_prob"].item(),
        "top5_distance": data[f"{case}/{kind}_d{difficulty}_top5"].item(),
    }
    flips = metrics.flip_probability(logits.argmax(axis=-1), is_noise, difficulty)
    assert flips == pytest.approx(want["flip_probability"], rel=1e-9)
    distance = metrics.top5_distance(logits, is_noise, difficulty)
    assert distance == pytest.approx(want["top5_distance"], rel=1e-9)
    halves = metrics.SequenceSums().update(logits[:2], is_noise, difficulty)
    sums = halves.merge(metrics.SequenceSums().update(logits[2:], is_noise, difficulty))
    assert sums.compute() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("is_noise", [True, False])
@pytest.mark.parametrize("difficulty", [1, 2, 4])
@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_perturbation_metrics_equal_loops(is_noise, difficulty, levels):
    logits = np.random.default_rng(difficulty).integers(0, levels, (4, 6, 8)).astype(np.float32)
    answers = logits.argmax(axis=-1)
    got = metrics.flip_probability(answers, is_noise, difficulty)
    assert got == pytest.approx(loops.flip_probability(answers, is_noise, difficulty), rel=1e-12)
    got = metrics.top5_distance(logits, is_noise, difficulty)
    assert got == pytest.approx(loops.top5_distance(logits, is_noise, difficulty), rel=1e-12)


def test_no_change_of_the_ranking_exceeds_the_largest_top5_distance():
    # All orders of ten classes that can put the best five elsewhere.
    ranks = np.minimum(list(itertools.permutations(range(10), 5)), 5)
    distances = np.abs(np.arange(5) - ranks).sum(axis=1)
    assert distances.max() == benchmarks.LARGEST_TOP5_DISTANCE
    # The first four leave, and the fifth becomes the best.
    rising = np.arange(12.0)
    second = -rising
    second[7] = 1.0
    assert metrics.top5_distance([[rising, second]], is_noise=False) == 18.0


def test_means_over_perturbations_by_hand():
    values = dict.fromkeys(robustness.PERTURBATIONS, 0.25)
    values["snow"] = 0.75
    assert metrics.mean_flip_probability(values) == pytest.approx(0.3)
    assert metrics.unnormalized_top5_distance(values) == pytest.approx(0.3)
    baseline = dict.fromkeys(reversed(robustness.PERTURBATIONS), 0.5)
    assert metrics.mean_flip_rate(values, baseline) == pytest.approx((9 * 50 + 150) / 10)
    distances = {"tilt": 3.0, "scale": 12.0}
    assert metrics.mean_top5_distance(distances, {"scale": 6.0, "tilt": 6.0}) == 125.0


def test_means_over_perturbations_refuse():
    values = dict.fromkeys(robustness.PERTURBATIONS, 0.25)
    with pytest.raises(ArgumentError, match=r"Unknown perturbation 'tlit'\. Did you mean 'tilt'"):
        metrics.mean_flip_probability({**values, "tlit": 0.1})
    with pytest.raises(ArgumentError, match="Expected every perturbation of tilt, scale;"):
        metrics.mean_flip_rate({"tilt": 0.1}, {"tilt": 0.1, "scale": 0.1})
    with pytest.raises(ArgumentError, match=r"Expected flip probability on \w+ of 0 to 1;"):
        metrics.mean_flip_probability({**values, "tilt": 23.65})
    with pytest.raises(ArgumentError, match="Expected baseline top-5 distance above 0; received 0"):
        metrics.mean_top5_distance({"tilt": 1.0}, {"tilt": 0.0})


@pytest.mark.parametrize(
    ("shape", "difficulty", "message"),
    [
        ((4, 9), 1, r"Expected logits \[S, T, K\]; received \(4, 9\)"),
        ((2, 4, 3), 1, "Expected at least 5 classes; received 3"),
        ((2, 1, 9), 1, "Expected sequences of 2 or more frames; received 1"),
        ((2, 3, 9), 3, "Expected sequences of 4 or more frames; received 3"),
        ((2, 3, 9), 0, "Expected difficulty of 1 or more; received 0"),
        ((0, 3, 9), 1, "Expected at least one pair of frames; received 0"),
    ],
)
def test_top5_distance_refuses(shape, difficulty, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.top5_distance(np.zeros(shape), False, difficulty)


def test_flip_probability_refuses():
    with pytest.raises(ArgumentError, match=r"Expected predictions \[S, T\]; received \(3,\)"):
        metrics.flip_probability([1, 2, 3], True)
    with pytest.raises(ArgumentError, match="Expected predictions of integers; received float64"):
        metrics.flip_probability([[1.0, 2.0]], True)
    with pytest.raises(RunError, match="Expected finite logits"):
        metrics.top5_distance(np.full((1, 2, 9), np.nan), True)


def test_metrics_need_no_tensorflow():
    python("import sys, augmix_tf.metrics; sys.exit('tensorflow' in sys.modules)")
