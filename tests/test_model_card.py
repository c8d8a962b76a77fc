import json

import pytest

from augmix_tf.serving import model_card
from tests.run_folders import PERTURBATIONS, alike, corrupted, measures, perturbed

CONFIG = {
    "dataset": "cifar10",
    "model": "wrn",
    "method": "augmix",
    "depth": 40,
    "widen_factor": None,
    "epochs": 100,
    "seed": 7,
    "learning_rate": 0.1,
    "data_dir": "/data/sets",
    "alexnet_rates": "rates.json",
    "other": "C:\\sets",
    "another": "~/sets",
    "corrupted_dir": "c10c",
    "train_limit": 0,
}
VERSIONS = {"python": "3.11.7", "tensorflow": "2.21.0"}
PROVENANCE = {
    "data": "cifar10 3.0.2 (TFDS, /data/sets/cifar10)",
    "parameters": 2_243_546,
    "epochs": 100,
    "versions": VERSIONS,
}
CALIBRATED = {"rms_calibration_error": 0.02}
RESULTS = {
    "schema": 2,
    "clean": measures(0.0494, rms=0.05, calibrated=CALIBRATED),
    "temperature": {"value": 1.25, "images": 500, "held_out_of": "train"},
    "corrupted": corrupted(alike(0.11), {"spatter": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    "perturbed": perturbed(dict.fromkeys(PERTURBATIONS, 0.015)),
    "provenance": PROVENANCE,
}
NAMES = ["cat", "dog_house", "owl|*x*", "<b>"]


def card(config=None, results=RESULTS, **more):
    options = {"temperature": 1.25} | more
    return model_card.make(CONFIG | (config or {}), results, NAMES, (32, 24), **options)


def test_what_was_measured_is_on_the_card():
    made = card()
    assert made["errors"]["clean"] == 0.0494
    assert made["errors"]["mean_corruption_error"] == pytest.approx(0.11)
    assert made["errors"]["corruptions"]["fog"] == pytest.approx(0.11)
    assert made["errors"]["corruptions"]["spatter"] == pytest.approx(0.3)
    assert "spatter" not in made["errors"]["counted"]
    assert made["errors"]["flip_probability"] == pytest.approx(0.015)
    assert made["calibration"] == {
        "temperature": 1.25,
        "images": 500,
        "held_out_of": "train",
        "rms_without": 0.05,
        "rms_with": 0.02,
    }
    assert made["seed"] == 7
    assert made["versions"] == VERSIONS
    assert made["model"]["parameters"] == 2_243_546
    assert made["model"]["image_size"] == [32, 24]
    assert made["model"]["class_names"] == NAMES
    assert "cited" in made["data"]["licence"]


def test_the_recipe_is_the_configuration_without_places_of_a_machine():
    assert card()["recipe"] == {
        "dataset": "cifar10",
        "model": "wrn",
        "method": "augmix",
        "depth": 40,
        "epochs": 100,
        "seed": 7,
        "learning_rate": 0.1,
        "train_limit": 0,
    }
    for text in model_card.texts(card()).values():
        assert "/data" not in text
        assert "rates" not in text
        assert "sets" not in text
        assert "c10c" not in text
    assert card({"dataset": "imagenet_v2/matched"})["recipe"]["dataset"] == "imagenet_v2/matched"


def test_a_card_of_nothing_measured_says_so():
    made = model_card.make({}, {}, ["a", "b"], (8, 9))
    assert made["errors"]["clean"] is None
    assert made["errors"]["corruptions"] == {}
    assert set(made["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    for limit in (
        "Nothing was measured.",
        "Not measured on corrupted pictures.",
        "The probabilities are not calibrated.",
    ):
        assert limit in made["limits"]
    text = model_card.markdown(made)
    assert "| clean pictures, error | not measured |" in text
    assert "not known to this program" in text


def limits(config=None, results=None, **more):
    return " ".join(card(config, RESULTS | (results or {}), **more)["limits"])


def test_limits_follow_from_what_was_done():
    assert "calibrated" not in limits()
    assert "not calibrated" in limits(temperature=1.0)
    assert "Not measured" not in limits()
    assert "corruptions that this program made" in limits()
    official = RESULTS["corrupted"] | {"data": {"source": "official"}}
    assert "this program made" not in limits(results={"corrupted": official})
    part = corrupted(alike(0.1, ["fog", "snow"]))
    assert "Not measured on these corruptions: gaussian_noise," in limits(
        results={"corrupted": part}
    )
    assert "part of the data: train_limit." in limits({"train_limit": 100})
    assert "Trained for 100 of 200 epochs." in limits({"epochs": 200})
    assert "epochs" not in limits()
    assert "of no use on photographs" in limits({"dataset": "shapes"})
    assert "Damaged" not in limits()
    assert "Damaged training data: 2 of 40 left out." in limits(left_out="2 of 40 left out")
    assert "32 x 24 pixels" in limits()


def test_json_is_the_card_and_holds_no_nan():
    texts = model_card.texts(card())
    assert json.loads(texts["model_card.json"]) == card()
    with pytest.raises(ValueError, match="JSON"):
        model_card.texts(card(temperature=float("nan")))


def test_markdown_has_the_numbers_and_no_markup_of_names():
    text = model_card.texts(card())["model_card.md"]
    assert text.startswith("# wrn, trained with augmix on cifar10\n")
    assert "cat, dog_house, owl\\|\\*x\\*, \\<b\\>" in text
    assert "| clean pictures, error | 4.94 % |" in text
    assert "| corrupted pictures, mean error over 15 corruptions | 11.00 % |" in text
    assert "| fog | 11.00 % |" in text
    assert "| spatter | 30.00 % |" in text
    assert "| perturbed sequences, mean flip probability | 1.50 % |" in text
    assert "| temperature | 1.25 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3}


def test_many_names_are_counted_and_a_name_stays_in_its_line():
    names = [f"n{i}" for i in range(25)]
    names[0] = "two\nlines"
    text = model_card.markdown(model_card.make(CONFIG, {}, names, (32, 32)))
    assert "two lines, n1," in text
    assert "n19, and 5 more\n" in text
    assert "n20" not in text


@pytest.mark.parametrize("dataset", sorted(model_card.LICENCES))
def test_the_licence_of_known_data_is_known(dataset):
    assert card({"dataset": dataset})["data"]["licence"] == model_card.LICENCES[dataset]
    assert card({"dataset": dataset}, licence="mine")["data"]["licence"] == "mine"


def test_what_an_older_document_lacks_is_no_hindrance():
    old = {"schema": 1, "clean": {"error": 0.1}, "provenance": {}}
    made = card(results=old)
    assert made["errors"]["clean"] == 0.1
    assert made["calibration"]["rms_with"] is None
    assert "| rms_with | not known |" in model_card.markdown(made)
