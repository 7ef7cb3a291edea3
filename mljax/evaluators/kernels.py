"""What the kernels of a KMCL network say of a split: mean variances, and how alike classes are.

KMCL (Sajedi et al., "End-to-End Supervised Multilabel Contrastive Learning",
https://arxiv.org/abs/2307.03967) describes each image by one Gaussian kernel per class. Classes
whose kernels overlap in the images of a split are correlated in the eyes of the network, whatever
their labels say.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mljax.data.records import Classes
from mljax.evaluation.pictures import make_figure
from mljax.evaluation.tables import MAX_CLASSES, extremes, max_rows

# Up to this many classes, the cells of the picture show their value.
_MAX_WITH_VALUES = 20


def class_similarity(
    means: Float[Array, "b #d k"],
    variances: Float[Array, "b #d #k"],
    *,
    num_features: int,
    width_factor: bool = False,
) -> Float[Array, "b k k"]:
    """Returns the Bhattacharyya coefficient of every two kernels of each image, in [0, 1].

    It is exp(-D) with the distance D of `mljax.losses.kernel_mixture.kernel_contrastive_loss`. The
    loss compares the kernels of one class in two images, this those of two classes in one image.

    Args:
      means: of the kernels.
      variances: of the kernels, positive.
      num_features: dimensions of the kernels, also of isotropic ones.
      width_factor: multiply the exponent of anisotropic kernels by `num_features`, as the loss does
        by default. Then it is 0 for any two classes of a trained network; False is the coefficient
        proper.
    """
    isotropic = means.shape[1] == variances.shape[1] == 1
    std = jnp.sqrt(variances)
    std_a, std_b = std[:, :, :, None], std[:, :, None, :]
    log_ratios = jnp.log1p((std_a - std_b) ** 2 / (2 * std_a * std_b))
    totals = variances[:, :, :, None] + variances[:, :, None, :]
    gaps = means[:, :, :, None] - means[:, :, None, :]
    # XLA sums over d without storing the terms.
    distances = jnp.sum(0.5 * log_ratios + 0.25 * gaps**2 / totals, axis=1)
    return jnp.exp(-(num_features if isotropic or width_factor else 1) * distances)


class Kernels:
    """The mean predicted variance of each class, and how alike the kernels of the classes are.

    Its figures are `mean_variances` in the order of the classes and, with `similarity`,
    `label_correlation`, the matrix of `class_similarity` in the mean over the images.

    Args:
      similarity: also compare every two classes, for the figure and the picture.
    """

    reads = ("features", "means", "variances")

    def __init__(self, *, similarity: bool = False) -> None:
        self._similarity = jax.jit(class_similarity, static_argnames="num_features")
        self._with_similarity = similarity
        self._sums: dict[str, np.ndarray] = {}
        self._images = 0

    def update(self, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of some images."""
        del batch
        means, variances = outputs["means"], outputs["variances"]
        shape = (len(means), means.shape[2])
        terms = {"mean_variances": np.broadcast_to(variances.mean(1), shape)}
        if self._with_similarity:
            width = outputs["features"].shape[1]
            terms["label_correlation"] = self._similarity(means, variances, num_features=width)
        for name, value in terms.items():
            # In float64: the sum of many images.
            total = np.asarray(value, np.float64).sum(0)
            self._sums[name] = self._sums.get(name, 0) + total
        self._images += len(means)

    def result(self, classes: Classes) -> dict[str, Any]:
        """Returns the means over all images."""
        self._classes = classes
        self.means = {name: total / self._images for name, total in self._sums.items()}
        return {name: value.tolist() for name, value in self.means.items()}

    def show(self, console: Console) -> None:
        """Prints a table of the variances."""
        variances = self.means["mean_variances"]
        console.print(_variance_table(variances, self._classes.names, max_rows(console)))

    def pictures(self, folder: Path) -> list[Path]:
        """Writes `label_correlation.png`, if it was computed and there are at least 2 classes.

        Raises:
          ImportError: without matplotlib.
        """
        similarity = self.means.get("label_correlation")
        if similarity is None or len(similarity) < 2:
            return []
        path = folder / "label_correlation.png"
        plot_label_correlation(similarity, self._classes.names, path)
        return [path]


def _variance_table(
    variances: Float[np.ndarray, " k"], class_names: Sequence[str], limit: int = MAX_CLASSES
) -> Table:
    table = Table(box=None)
    table.add_column("class")
    table.add_column("mean predicted variance", justify="right")
    for c in extremes(variances, limit):
        table.add_row(escape(class_names[c]), f"{variances[c]:.4g}")
    return table


def plot_label_correlation(
    similarity: Float[np.ndarray, "k k"], class_names: Sequence[str], path: Path
) -> None:
    """Writes a heat map of the similarity of classes.

    The colors span the values of different classes; the diagonal, which is 1, is left grey.

    Args:
      similarity: in [0, 1], of at least 2 classes.
      class_names: in that order.
      path: the ending tells the format; the folder is made.
    """
    count = len(class_names)
    side = min(max(0.25 * count, 4.0), 30.0)
    figure = make_figure((side + 2.5, side + 1.5))
    axes = figure.add_subplot()
    different = ~np.eye(count, dtype=bool)
    shown = np.where(different, similarity, np.nan)
    low, high = similarity[different].min(), similarity[different].max()
    heat_map = axes.imshow(shown, cmap="viridis", vmin=low, vmax=high if high > low else low + 0.01)
    heat_map.set_cmap(heat_map.get_cmap().with_extremes(bad="0.85"))
    # One label in a few, where they would overlap.
    ticks = range(0, count, math.ceil(count / 300))
    font_size = min(max(50.0 * side / count, 4.0), 9.0)
    style = {"fontsize": font_size, "parse_math": False}
    axes.set_xticks(ticks, [class_names[c] for c in ticks], rotation=90, **style)
    axes.set_yticks(ticks, [class_names[c] for c in ticks], **style)
    if count <= _MAX_WITH_VALUES:
        for row, column in np.argwhere(different):
            value = similarity[row, column]
            axes.text(
                column,
                row,
                f"{value:.2f}" if high >= 0.1 else f"{value:.0e}",
                color="white" if value <= (low + high) / 2 else "black",
                fontsize=7,
                ha="center",
                va="center",
            )
    figure.colorbar(heat_map, label="mean Bhattacharyya coefficient of two kernels", shrink=0.8)
    axes.set_title("Label correlation by the kernels")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
