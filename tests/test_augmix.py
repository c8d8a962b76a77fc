"""The mix against Pillow, its laws, how it is compiled and what it refuses."""

import re

import numpy as np
import pytest
import tensorflow as tf

from augmix_tf import runtime, seeds
from augmix_tf.augment import AugMixPlan, AugMixSettings, apply_plan, augmix_views, draw_plan
from augmix_tf.errors import ArgumentError
from augmix_tf.ops import OPERATIONS
from augmix_tf.ops.registry import parameter_of
from tests import golden
from tests.oracles import pillow_augmix
from tests.runs import RUNS, compiled_functions, leave_out_xla
from tests.test_ops import pillow, sample_images

# A mix of k chains rounds k + 4 times, here and in the oracle: 16 half units of float32 for k = 4.
ROUNDING = 255 * 1e-6
SETTINGS = {
    "paper": (AugMixSettings(), (12, 20), 0),
    "all operations": (AugMixSettings(severity=9.9, all_ops=True), (12, 20), 0),
    "two chains of five": (AugMixSettings(width=2, depth=5, all_ops=True), (17, 9), 128),
}


def drawn(images: np.ndarray, settings: AugMixSettings, seed: int = 1) -> AugMixPlan:
    return draw_plan(seeds.fold(seed, 0, 0, 1), len(images), images.shape[1:3], settings)


def only_chain(plan: AugMixPlan, chain: int) -> AugMixPlan:
    """The plan whose view is one chain: nothing of the original, nothing of the others."""
    count, width = plan.chain_weights.shape
    weights = np.tile(np.eye(width, dtype=np.float32)[chain], (count, 1))
    return plan._replace(chain_weights=tf.constant(weights), mixed_share=tf.ones(count))


def pillow_chains(images: np.ndarray, plan: AugMixPlan, fill: int = 0) -> np.ndarray:
    """Every chain of every image, uint8 [N, width, H, W, 3]."""
    count, width, _ = plan.operation.shape
    chains = np.repeat(images[:, None], width, axis=1)
    for image, chain in np.ndindex(count, width):
        for call in range(plan.chain_depth[image, chain]):
            name = OPERATIONS[plan.operation[image, chain, call]]
            parameter = [float(plan.parameter[image, chain, call])]
            picture = chains[image, chain][None]
            chains[image, chain] = pillow(name, picture, parameter, fill)[0]
    return chains


def pillow_views(images: np.ndarray, plan: AugMixPlan, chains: np.ndarray) -> np.ndarray:
    """The mix of each image with its chains."""
    parts = zip(images, chains, plan.chain_weights, plan.mixed_share, strict=True)
    return np.stack([pillow_augmix.mix(*part) for part in parts])


@pytest.mark.parametrize(("settings", "size", "fill"), SETTINGS.values(), ids=SETTINGS)
def test_a_drawn_view_equals_pillow(settings, size, fill):
    for seed in range(3):
        images = sample_images(*size, seed)
        plan = drawn(images, settings, seed)
        chains = pillow_chains(images, plan, fill)
        for chain in range(settings.width):
            got = apply_plan(images, only_chain(plan, chain), fill)
            np.testing.assert_array_equal(got, chains[:, chain])
        got = apply_plan(images, plan, fill)
        assert got.dtype == tf.float32
        want = pillow_views(images, plan, chains)
        np.testing.assert_allclose(got, want, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("run", ["tf_data", "xla"])  # the other tests run it eagerly
def test_a_plan_written_by_hand_does_what_it_says_in_every_way_it_is_run(run):
    images = sample_images(12, 20)[:2].astype(np.int64)
    index = OPERATIONS.index
    unused = index("sharpness")
    plan = AugMixPlan(
        operation=tf.constant(
            [
                [[index("solarize"), index("translate_x")], [index("posterize"), unused]],
                [[index("translate_y"), unused], [index("solarize"), index("solarize")]],
            ]
        ),
        parameter=tf.constant([[[100, 3], [1, np.nan]], [[-5, np.inf], [0, 0]]], tf.float64),
        chain_depth=tf.constant([[2, 1], [1, 2]]),
        chain_weights=tf.constant([[0.25, 0.75], [0.875, 0.125]]),
        mixed_share=tf.constant([0.5, 0.25]),
    )
    solarized = np.where(images[0] < 100, images[0], 255 - images[0])
    left = np.concatenate([solarized[:, 3:], np.zeros_like(solarized[:, :3])], axis=1)
    down = np.concatenate([np.zeros_like(images[1, :5]), images[1, :-5]])
    want = [
        0.5 * images[0] + 0.125 * left + 0.375 * (images[0] & 128),
        0.75 * images[1] + 0.21875 * down + 0.03125 * images[1],
    ]
    got = RUNS[run](apply_plan, tf.constant(images, tf.uint8), plan)
    np.testing.assert_array_equal(got, want)  # all shares are sums of powers of two


def test_equals_the_original_code():
    reference = golden.load("augmix_mix")
    names, used = reference["op"], reference["op"] != ""
    operation = tf.constant(np.vectorize((*OPERATIONS, "").index)(names) % 13, tf.int32)
    level = tf.constant(np.nan_to_num(reference["level"], nan=1.0))
    parameter = parameter_of(operation, level, tf.constant(reference["negative"]), (32, 32))
    drawing = used & ~np.isnan(reference["param"])
    assert drawing.sum() > 50
    np.testing.assert_array_equal(parameter.numpy()[drawing], reference["param"][drawing])

    plan = AugMixPlan(
        operation=operation,
        parameter=parameter,
        chain_depth=tf.constant(reference["depth"], tf.int32),
        chain_weights=tf.constant(reference["w"]),
        mixed_share=tf.constant(reference["m"]),
    )
    np.testing.assert_array_equal(used.sum(axis=-1), plan.chain_depth)
    for chain in range(3):
        got = apply_plan(reference["inputs"], only_chain(plan, chain))
        np.testing.assert_array_equal(got, reference["chain_outputs"][:, chain])
    got = (apply_plan(reference["inputs"], plan) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(got, reference["outputs"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("views", [1, 3])
def test_views_are_the_clean_picture_and_one_plan_each(views):
    images, settings = sample_images(12, 20), AugMixSettings()
    got = augmix_views(images, 3, 1, 4, settings, views)
    assert got.shape == (8, views, 12, 20, 3)
    assert got.dtype == tf.float32
    np.testing.assert_array_equal(got[:, 0], images)
    for view in range(1, views):
        plan = draw_plan(seeds.fold(3, 1, 4, view), 8, (12, 20), settings)
        want = apply_plan(images, plan)
        np.testing.assert_allclose(got[:, view], want, rtol=0, atol=ROUNDING)


def test_a_last_smaller_batch_of_a_pipeline_gets_its_views():
    images, settings = sample_images(12, 20), AugMixSettings()
    batches = tf.data.Dataset.from_tensor_slices(images).batch(5).enumerate().skip(1)
    [views] = batches.map(lambda step, batch: augmix_views(batch, 3, 0, step, settings, views=2))
    batch = images[5:]
    plan = draw_plan(seeds.fold(3, 0, 1, 1), len(batch), (12, 20), settings)
    want = pillow_views(batch, plan, pillow_chains(batch, plan))
    np.testing.assert_array_equal(views[:, 0], batch)
    np.testing.assert_allclose(views[:, 1], want, rtol=0, atol=ROUNDING)


def test_new_seeds_and_steps_are_no_new_program():
    def traces() -> int:
        return sum(function.trace_count() for function in compiled_functions().values())

    images, settings = sample_images(12, 20), AugMixSettings()
    augmix_views(images, 0, 0, 0, settings)
    before = traces()
    assert before > 0
    for step in range(1, 20):
        augmix_views(images, step, step // 2, tf.constant(step), settings)
        other_strength = AugMixSettings(alpha=1.0 + step, severity=1.0)
        augmix_views(images, 0, 0, step, other_strength)
    assert traces() == before


def test_compiles_inside_an_outer_program_with_no_call_to_the_host():
    images = tf.constant(sample_images(12, 20))
    plan = drawn(sample_images(12, 20), AugMixSettings())
    outer = tf.function(lambda images, plan: apply_plan(images, plan) / 255, jit_compile=True)
    program = outer.experimental_get_compiler_ir(images, plan)(stage="hlo")
    instructions = set(re.findall(r" ([a-z][a-z0-9-]*)\(", program))
    assert {"gather", "while", "conditional"} <= instructions
    banned = re.compile("custom-call|rng.*|infeed|outfeed|send.*|recv.*|.*callback.*")
    assert [name for name in instructions if banned.fullmatch(name)] == []


def test_a_machine_without_xla_gets_the_same_views(monkeypatch):
    images, settings = sample_images(12, 20), AugMixSettings()
    plan = drawn(images, settings)
    want, chain = (apply_plan(images, given) for given in (plan, only_chain(plan, 1)))
    leave_out_xla(monkeypatch)
    np.testing.assert_allclose(apply_plan(images, plan), want, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(apply_plan(images, only_chain(plan, 1)), chain)
    assert max(function.trace_count() for function in compiled_functions().values()) > 0


def test_a_machine_without_xla_is_told_once(monkeypatch):
    def refuse(*_, **__):
        raise tf.errors.InvalidArgumentError(None, None, "no XLA here")

    said = []
    runtime.xla_available.cache_clear()
    monkeypatch.setattr(tf, "function", refuse)
    monkeypatch.setattr(runtime.logging, "warning", lambda text, *args: said.append(text % args))
    try:
        assert [runtime.xla_available() for _ in range(3)] == [False] * 3
    finally:
        runtime.xla_available.cache_clear()
    assert len(said) == 1
    assert "no XLA here" in said[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"severity": 11}, "severity must be 0.1 to 10; received 11."),
        ({"severity": float("nan")}, "severity must be finite; received nan."),
        ({"width": 0}, "width must be 1 or more; received 0."),
        ({"depth": 0}, "depth must be -1 (random) or 1 or more; received 0."),
        ({"depth": -2}, "depth must be -1 or more; received -2."),
        ({"width": 2.5}, "width must be of type int; received 2.5."),
        ({"alpha": 1e-320}, "alpha must be 1e-06 to 1e+06; received 1e-320."),
    ],
    ids=str,
)
def test_refuses_settings_out_of_range(setting, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        AugMixSettings(**setting)


def test_refuses_other_pictures_plans_fills_and_no_view():
    images, settings = sample_images(12, 20), AugMixSettings()
    plan = drawn(images, settings)
    with pytest.raises(ArgumentError, match="received float32"):
        apply_plan(images.astype(np.float32), plan)
    with pytest.raises(ArgumentError, match=r"received uint8 \(12, 20, 3\)"):
        apply_plan(images[0], plan)
    with pytest.raises(ArgumentError, match=r"Expected a plan for 8 images; received 1\."):
        apply_plan(images, drawn(images[:1], settings))
    with pytest.raises(ArgumentError, match=r"Expected a plan for 3 images; received 8\."):
        apply_plan(images[:3], plan)
    for fill in (-1, 256):
        with pytest.raises(ArgumentError, match=f"fill value in 0..255; received {fill}"):
            apply_plan(images, plan, fill=fill)
    with pytest.raises(ArgumentError, match=r"3 or 1 channels; received \(8, 12, 20, 2\)"):
        augmix_views(images[..., :2], 0, 0, 0, settings)
    with pytest.raises(ArgumentError, match="at least 1 view; received 0"):
        augmix_views(images, 0, 0, 0, settings, views=0)
