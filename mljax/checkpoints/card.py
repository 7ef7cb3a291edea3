"""The model card: what a checkpoint says to people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mljax.config.schema import Config
from mljax.terminal.grammar import counted

if TYPE_CHECKING:
    from mljax.checkpoints.checkpoint import Description


def make_card(description: "Description") -> str:
    """Returns the card of a network as Markdown."""
    spec, names = description.spec, description.class_names
    classes = f"{spec.num_classes}" + (f" ({', '.join(names)})" if names else "")
    return "\n".join(
        [
            f"# {spec.backbone.name} with a {spec.head.name} head",
            "",
            f"- classes: {classes}",
            f"- preprocessing: {description.preprocessing}",
            "- in Python: `mljax.load_model(folder)`",
            "- on images: `python -m mljax.predict --checkpoint FOLDER IMAGE`",
            "",
        ]
    )


def training_card(
    config: Config, *, figure: str, images: int, weights: str, class_names: Sequence[str]
) -> str:
    """Returns the card of the best network of a run as Markdown.

    Args:
      config: of the run.
      figure: name and value of what chose the network.
      images: how many it was evaluated on.
      weights: which ones these are.
      class_names: in the order of the logits.
    """
    return "\n".join(
        [
            f"# {config.model.backbone.name}, {config.model.head.name} head",
            "",
            f"- {figure} on {config.data.reader.name}, split {config.data.eval_split} "
            f"({counted(images, 'image')})",
            f"- {weights}",
            f"- classes: {', '.join(class_names)}",
            f"- preprocessing: {config.data.preprocessing}",
            "",
        ]
    )
