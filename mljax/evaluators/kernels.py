"""What the kernels of a KMCL network say of a split: mean variances, and how alike classes are.

KMCL (Sajedi et al., "End-to-End Supervised Multilabel Contrastive Learning",
https://arxiv.org/abs/2307.03967) describes each image by one Gaussian kernel per class. Classes
whose kernels overlap in the images of a split are correlated in the eyes of the network, whatever
their labels say.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mljax.devices.mesh import batch_sharding, local_rows, make_mesh, put_batch, replicated
from mljax.heads.kernel_mixture import KernelMixture
from mljax.models.classifier import Arrays, Classifier, merge_model, split_model

Batch = dict[str, np.ndarray]

# Beyond this, the table shows only the classes with the least and the greatest variance.
_MAX_CLASSES = 100
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


class KernelStatistics:
    """Sums over the images of the batches that `watch` has passed on.

    Args:
      model: a network with a kernel mixture head that has kernels.
      similarity: also sum up the similarity of classes, `[b, k, k]` for each batch.
    """

    def __init__(self, model: Classifier, *, similarity: bool = False) -> None:
        self._mesh = make_mesh(jax.local_devices())
        graph, params, stats = split_model(model)
        self._weights = jax.device_put((params, stats), replicated(self._mesh))
        self._sums: dict[str, np.ndarray] = {}

        def run(
            params: Arrays, stats: Arrays, images: Float[Array, "b h w 3"], valid: Bool[Array, " b"]
        ) -> tuple[Array, dict[str, Array]]:
            outputs = merge_model(graph, params, stats)(images)
            means, variances = outputs["means"], outputs["variances"]
            of_class = jnp.broadcast_to(variances.mean(1), (len(images), means.shape[2]))
            terms = {"images": valid, "variances": of_class}
            if similarity:
                width = outputs["features"].shape[1]
                terms["similarity"] = class_similarity(means, variances, num_features=width)
            sums = {
                name: jnp.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, 0).sum(0)
                for name, x in terms.items()
            }
            return outputs["logits"], sums

        shardings = batch_sharding(self._mesh), replicated(self._mesh)
        self._run = jax.jit(run, out_shardings=shardings)

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields each batch with the logits in the place of the images."""
        for batch in batches:
            inputs = put_batch({k: batch[k] for k in ("images", "valid")}, self._mesh)
            logits, sums = self._run(*self._weights, **inputs)
            for name, value in sums.items():
                # In float64: the sum of many images.
                self._sums[name] = self._sums.get(name, 0) + np.asarray(value, np.float64)
            yield batch | {"images": local_rows(logits)}

    def means(self) -> dict[str, Float[np.ndarray, "..."]]:
        """Returns the means over all images of all hosts.

        `variances` `[k]`, over the dimensions too, and with `similarity` also that, `[k, k]`.
        """
        sums = self._sums
        if jax.process_count() > 1:
            sums = jax.tree.map(lambda x: x.sum(0), multihost_utils.process_allgather(sums))
        return {name: x / sums["images"] for name, x in sums.items() if name != "images"}


def watch_kernels(model: Classifier, picture: Path | None) -> KernelStatistics | None:
    """Returns statistics for a network that has kernels, None for any other.

    Args:
      model: any network.
      picture: the file that `report_kernels` is to write; all that speaks against it is told now.

    Raises:
      ValueError: for a picture of a network without kernels or with a single class, or of a format
        that matplotlib does not write.
      ImportError: for a picture without matplotlib.
    """
    has_kernels = isinstance(model.head, KernelMixture) and model.head.var is not None
    if picture is not None:
        if not has_kernels or model.spec.num_classes < 2:
            raise ValueError(
                "a label correlation needs a network with a kernel_mixture head that has kernels "
                f"and at least 2 classes; this one has a {model.spec.head.name} head with "
                f"{model.spec.head.kwargs or 'no arguments'} and {model.spec.num_classes} classes"
            )
        _check_format(picture)
    return KernelStatistics(model, similarity=picture is not None) if has_kernels else None


def report_kernels(
    statistics: KernelStatistics,
    class_names: Sequence[str],
    console: Console,
    *,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Prints what was watched, writes the picture, and returns the figures for `json`.

    `mean_variances` is in the order of the classes, `label_correlation` the matrix in the picture.
    """
    means = statistics.means()
    variances = means["variances"]
    console.print(_variance_table(variances, class_names))
    figures: dict[str, Any] = {"mean_variances": variances.tolist()}
    if picture is not None:
        plot_label_correlation(means["similarity"], class_names, picture)
        console.print(f"label correlation written to {picture}", highlight=False, markup=False)
        figures["label_correlation"] = means["similarity"].tolist()
    return figures


def _variance_table(variances: Float[np.ndarray, " k"], class_names: Sequence[str]) -> Table:
    table = Table(box=None)
    table.add_column("class")
    table.add_column("mean predicted variance", justify="right")
    shown = list(range(len(variances)))
    if len(shown) > _MAX_CLASSES:
        order = np.argsort(variances, kind="stable").tolist()
        shown = order[: _MAX_CLASSES // 2] + order[-_MAX_CLASSES // 2 :]
    for c in shown:
        table.add_row(escape(class_names[c]), f"{variances[c]:.4g}")
    return table


def _check_format(path: Path) -> None:
    figure = _figure((1.0, 1.0))
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        endings = ", .".join(sorted(formats))
        raise ValueError(f"{path}: expected a file name that ends in .{endings}")


def _figure(size: tuple[float, float]) -> Any:  # noqa: ANN401
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture needs matplotlib: pip install 'mljax[plot]'") from error
    return Figure(figsize=size, layout="constrained")


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
    figure = _figure((side + 2.5, side + 1.5))
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
