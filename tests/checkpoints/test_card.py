"""What the model cards say."""

from mljax.checkpoints.card import make_card, training_card
from mljax.checkpoints.checkpoint import Description
from tests import networks, small_configs


def test_the_short_card_says_what_the_network_is():
    model = networks.model(class_names=("cat", "dog"), num_classes=2)
    description = Description(
        spec=model.spec, class_names=model.class_names, preprocessing=model.preprocessing
    )
    card = make_card(description)
    for fact in ("tresnet_m", "linear head", "2 (cat, dog)", "image_size=32"):
        assert fact in card


def test_the_card_of_a_run_says_how_it_was_evaluated():
    card = training_card(
        small_configs.config(),
        figure="mAP 71.20",
        images=20,
        weights="averaged weights",
        class_names=("cat", "dog"),
    )
    facts = ("tresnet_m", "mAP 71.20", "digits", "split val", "20 images", "averaged weights")
    for fact in (*facts, "cat, dog", "image_size=32"):
        assert fact in card
