"""Intervals, paired tests, and the noise in the RMS calibration error."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from augmix_tf import metrics
from augmix_tf.errors import ArgumentError

COUNTS = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (437, 10_000), (9_999, 10_000), (1, 50_000)]


def calibrated(count, seed=0, shift=0.0):
    """Confidences, and whether predictions are correct: with probability confidence - shift."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.4, 1.0, count)
    return confidence, random.uniform(size=count) < confidence - shift


def draws(confidence, shift, count, seed=1):
    """Yields `correct` of `count` test sets with these confidences."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield random.uniform(size=len(confidence)) < confidence - shift


@pytest.mark.parametrize(("wrong", "count"), COUNTS)
def test_the_interval_of_an_error_is_wilsons(wrong, count):
    want = stats.binomtest(wrong, count).proportion_ci(method="wilson")
    low, high = metrics.wilson_interval(wrong, count)
    assert (low, high) == pytest.approx((want.low, want.high), rel=1e-9, abs=1e-15)
    assert 0 <= low <= wrong / count <= high <= 1
    # Right and wrong change places.
    mirrored = metrics.wilson_interval(count - wrong, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-15)


@pytest.mark.parametrize("count", [2, 3, 57])
def test_the_interval_of_a_mean_is_students(count):
    values = np.random.default_rng(0).uniform(size=count)
    want = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert metrics.mean_interval(values) == pytest.approx(want, rel=1e-12)
    assert metrics.mean_interval([0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize("counts", [(3, 1, 9, 2), (0, 0, 4, 4), (7, 0, 0, 0), (30, 60, 900, 10)])
def test_mcnemar_is_the_binomial_test_of_the_images_that_one_gets_right(counts):
    only_first, only_second, both, neither = counts
    first = [1] * only_first + [0] * only_second + [1] * both + [0] * neither
    second = [0] * only_first + [1] * only_second + [1] * both + [0] * neither
    got = metrics.mcnemar(np.array(first, bool), second)
    assert got[:2] == (only_first, only_second)
    differ = only_first + only_second
    want = stats.binomtest(only_first, differ).pvalue if differ else 1.0
    assert got.p_value == pytest.approx(want, rel=1e-9)
    assert metrics.mcnemar(second, first).p_value == got.p_value


def test_the_paired_bootstrap_is_that_of_scipy():
    random = np.random.default_rng(0)
    # Errors over three cells: thirds that are added up in different orders.
    first, second = (random.integers(0, 2, (3, 400)).mean(axis=0) * p for p in (0.9, 1.0))
    got = metrics.paired_bootstrap(first, second)
    assert got.difference == pytest.approx((first - second).mean(), abs=1e-15)
    want = stats.bootstrap(
        (first - second,), np.mean, method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    # Ends of 5,000 draws vary by about 3 % of the width.
    assert got[1:] == pytest.approx((want.low, want.high), abs=0.06 * (want.high - want.low))
    assert metrics.paired_bootstrap(first, second) == got
    low, high = (-bound for bound in metrics.paired_bootstrap(second, first)[:0:-1])
    assert (low, high) == pytest.approx(got[1:], abs=0.06 * (got.high - got.low))


def test_networks_that_err_on_the_same_images_do_not_differ():
    error = np.random.default_rng(0).uniform(size=50)
    assert metrics.paired_bootstrap(error, error) == (0.0, 0.0, 0.0)
    # All images by the same amount: certain, however much the images vary.
    got = metrics.paired_bootstrap(error + 0.125, error)
    assert got == pytest.approx((0.125, 0.125, 0.125), abs=1e-12)


@pytest.mark.parametrize("count", [1, 8, 9, 1037])
def test_outcomes_are_read_as_they_were_written(count):
    random = np.random.default_rng(count)
    correct, labels = random.integers(0, 2, count) == 1, random.integers(0, 10, count)
    written = metrics.Outcomes.of(correct, labels)
    assert len(written.correct) <= count / 6 + 4
    read = metrics.Outcomes(**dataclasses.asdict(written))
    np.testing.assert_array_equal(read.is_correct, correct)
    assert read.same_images(metrics.Outcomes.of(~correct, labels))
    assert not read.same_images(metrics.Outcomes.of(correct, labels + 1))


def test_errors_per_image_are_means_over_sets_of_the_same_images():
    labels = np.arange(3)
    first = metrics.Outcomes.of(np.array([True, True, False]), labels)
    second = metrics.Outcomes.of(np.array([True, False, False]), labels)
    np.testing.assert_array_equal(metrics.errors_per_image([first, second]), [0, 0.5, 1])
    other = metrics.Outcomes.of(np.array([True, False, False]), labels[::-1])
    for sets in ([], [first, None], [first, other]):
        assert metrics.errors_per_image(sets) is None


@pytest.mark.parametrize("count", [60, 250, 1037])
@pytest.mark.parametrize("ties", [False, True])
def test_the_noise_floor_is_what_a_calibrated_network_measures(count, ties):
    confidence, _ = calibrated(count)
    confidence = np.round(confidence, 1) if ties else confidence
    measured = [metrics.rms_calibration_error(confidence, c) for c in draws(confidence, 0, 1500)]
    want = math.sqrt(np.mean(np.square(measured)))
    # The standard error of the mean of 1,500 squares is below 4 %.
    assert metrics.rms_noise_floor(confidence) == pytest.approx(want, rel=0.06)


def test_the_noise_floor_by_hand():
    # Bins of two: variances 1/4 and 1/4 over two images, and 0 where confidence is 1.
    assert metrics.rms_noise_floor([0.5, 0.501, 1.0, 1.0], bin_size=2) == pytest.approx(0.25, 1e-5)
    # Four images of one confidence share their accuracy: its variance is that of four images.
    assert metrics.rms_noise_floor([0.5] * 4, bin_size=2) == 0.25
    assert metrics.rms_noise_floor([0.5] * 4, bin_size=4) == 0.25


@pytest.mark.parametrize("shift", [0.0, 0.06])
def test_the_debiased_error_is_right_on_average(shift):
    confidence, _ = calibrated(1037)
    found = [
        metrics.debiased_rms_calibration_error(confidence, c)
        for c in draws(confidence, shift, 1500)
    ]
    if shift:
        # Gaps of bins are the shift; the standard error of the mean square is below 2 %.
        assert np.mean(np.square(found)) == pytest.approx(shift**2, rel=0.05)
    else:
        assert np.median(found) < metrics.rms_noise_floor(confidence) / 2
    assert metrics.debiased_rms_calibration_error([0.5], [1]) == 0.5
    # Each bin of two: gap 0, so less than noise adds.
    assert metrics.debiased_rms_calibration_error([0.4, 0.6] * 2, [1, 0, 1, 0], 4) == 0.0


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.06, 0.2])
def test_the_interval_of_the_calibration_error_covers_in_95_of_100_test_sets(shift, debiased):
    confidence, _ = calibrated(2000)
    answers = list(draws(confidence, shift, 500))
    if debiased:
        target = shift
    else:
        measured = [metrics.rms_calibration_error(confidence, c) for c in answers]
        target = math.sqrt(np.mean(np.square(measured)))
    intervals = [
        metrics.rms_calibration_interval(confidence, c, debiased=debiased) for c in answers
    ]
    covered = np.mean([low - 1e-12 <= target <= high for low, high in intervals])
    assert covered >= 0.92
    # Without any error the lower end is 0 and the interval is too wide.
    assert covered <= 0.98 or not shift


def test_overconfidence_is_signed_and_has_the_interval_of_a_mean():
    confidence, correct = calibrated(400, shift=0.1)
    value = metrics.overconfidence(confidence, correct)
    low, high = metrics.overconfidence_interval(confidence, correct)
    assert low < value < high
    want = stats.t.interval(0.95, 399, value, stats.sem(confidence - correct))
    assert (low, high) == pytest.approx(want, rel=1e-12)
    assert metrics.overconfidence([0.5, 0.75], [1, 1]) == -0.375
    assert metrics.overconfidence([0.5, 0.75], [0, 1]) == 0.125


REFUSALS = {
    "no image": (lambda: metrics.wilson_interval(0, 0), "at least one image; received 0"),
    "wrong": (lambda: metrics.wilson_interval(11, 10), "0 to 10 wrong predictions; received 11"),
    "one value": (lambda: metrics.mean_interval([0.5]), "2 or more values; received 1"),
    "NaN": (lambda: metrics.mean_interval([0.5, math.nan]), "finite values; received NaN"),
    "rank": (lambda: metrics.mcnemar([[1]], [1]), r"values \[N\].* received \(1, 1\)"),
    "lengths": (lambda: metrics.mcnemar([1, 0], [1]), "2 values as of the other; received 1"),
    "draws": (lambda: metrics.paired_bootstrap([0], [1], draws=0), "at least one draw"),
    "confidence": (lambda: metrics.rms_noise_floor([2.0]), "confidence of 0 to 1"),
    "bytes": (lambda: metrics.Outcomes(9, "", "AAAA"), "outcomes of 9 images; received 3 bytes"),
    "base64": (lambda: metrics.Outcomes(9, "", "A?"), r"outcomes in base64 \("),
    "bins": (lambda: metrics.rms_noise_floor([0.5], bin_size=0), "bins of at least one example"),
}


@pytest.mark.parametrize(("call", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ArgumentError, match=f"Expected {message}"):
        call()
