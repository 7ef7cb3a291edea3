"""The figures of images with one label each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mljax.data.records import Classes
from mljax.evaluation.scores import Rows
from mljax.terminal.grammar import counted


class SingleLabel:
    """The share of images, in percent, whose label is first, or among the first, of the logits.

    Its figures are `top1` and `top<k>`. Of equal logits, none is before the other: a network that
    gives the same for all classes is right in none.

    Args:
      top_k: of the second figure.

    Raises:
      ValueError: for a top_k below 1.
    """

    reads = ("logits",)

    def __init__(self, *, top_k: int = 5) -> None:
        if top_k < 1:
            raise ValueError(f"single_label: top_k must be at least 1, got {top_k}")
        self._top_k = top_k
        self._hits = {1: 0, top_k: 0}
        self._images = 0

    def update(self, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of some images.

        Raises:
          ValueError: for an image that has not exactly one label.
        """
        present = batch["labels"] > 0
        if not (present.sum(1) == 1).all():
            raise ValueError("single_label: expected one label an image; take multilabel")
        logits = outputs["logits"]
        rank = (logits >= logits[present][:, None]).sum(1)
        for k in self._hits:
            self._hits[k] += int(np.count_nonzero(rank <= k))
        self._images += len(rank)

    def result(self, classes: Classes) -> dict[str, Any]:
        """Returns the figures."""
        del classes
        self.figures = {f"top{k}": 100 * hits / self._images for k, hits in self._hits.items()}
        return {**self.figures}

    def show(self, console: Console) -> None:
        """Prints one line."""
        figures = ", ".join(f"{name} {value:.2f}" for name, value in self.figures.items())
        console.print(f"[bold]{figures}[/bold] on {counted(self._images, 'image')}")

    def pictures(self, folder: Path) -> list[Path]:
        """Writes none."""
        del folder
        return []


class NearestNeighbors:
    """The share of images, in percent, whose nearest other image shares a label: `neighbor`.

    It tells how good an embedding is while there is no classifier. Similarity is the cosine.

    Args:
      output: of the head, such as `pooled` or `projections`.
    """

    def __init__(self, *, output: str = "pooled") -> None:
        self.reads = (output,)
        self._rows: dict[str, Rows] = {"embeddings": Rows(), "labels": Rows()}

    def update(self, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of some images."""
        embeddings = np.asarray(outputs[self.reads[0]], np.float32)
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self._rows["embeddings"].append(embeddings / np.maximum(norms, 1e-12))
        self._rows["labels"].append((batch["labels"] > 0).astype(np.int8))

    def result(self, classes: Classes) -> dict[str, Any]:
        """Returns the figure; with one image it is None."""
        del classes
        embeddings, labels = (rows.array() for rows in self._rows.values())
        hits = 0
        for start in range(0, len(embeddings), 1024):
            block = np.arange(start, min(start + 1024, len(embeddings)))
            similarity = embeddings[block] @ embeddings.T
            similarity[np.arange(len(block)), block] = -np.inf
            nearest = similarity.argmax(1)
            hits += int((labels[block] & labels[nearest]).any(1).sum())
        self.figure = 100 * hits / len(embeddings) if len(embeddings) > 1 else None
        return {"neighbor": self.figure}

    def show(self, console: Console) -> None:
        """Prints one line."""
        value = "-" if self.figure is None else f"{self.figure:.2f}"
        console.print(f"[bold]neighbor {value}[/bold]: the nearest image by {self.reads[0]} fits")

    def pictures(self, folder: Path) -> list[Path]:
        """Writes none."""
        del folder
        return []
