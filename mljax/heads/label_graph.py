"""A graph over the classes, whose layers see no image: what ML-GCN and AAM's graph branch share."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mljax.config.part import Part, resolved
from mljax.data.co_occurrence import co_occurrence as count_pairs
from mljax.data.co_occurrence import conditional_probabilities, read_probabilities
from mljax.data.files.word_vectors import vector_size, vectors_for, vectors_in_order
from mljax.data.records import Classes
from mljax.layers.graph import adjacency, normalized_adjacency
from mljax.layers.init import normal_init
from mljax.layers.variables import OfClasses

LABEL_GRAPH = Part(name="label_graph")
_LEARNED_SIZE = 300


class LabelGraph(nnx.Module):
    """Two graph layers on a vector of each class, along the edges of labels that occur together.

    `for_classes` makes the edges out of the training labels, or of `co_occurrence`, and finds the
    vectors; until then all outputs are nan. A checkpoint holds both, so it needs no file. The
    vectors are frozen, as in the originals. The vector of a class is

    | `word_vectors` | `learn_unnamed` | a class with words | a class without |
    |---|---|---|---|
    | given | false | its word vector | the mean of the others, weighted by P(other given class) |
    | given | true | its word vector | learned |
    | none | false | | its row of P(other given class), with 1 for itself |
    | none | true | | learned |

    where a mean over nothing is 0. Classes without words are an open question of the paper
    (Prokofiev and Sovrasov 2022, https://arxiv.org/abs/2209.06585), so the last column is mljax's.

    Chen et al. 2019, section 3.3, https://arxiv.org/abs/1904.03582; megvii-research/ML-GCN
    models.py; tosfaq/deep-object-reid torchreid/models/gcn.py.

    Args:
      sizes: widths of the two layers.
      layer: `graph_convolution` or `graph_attention`, or one of your own.
      word_vectors: path of a vocabulary, such as `glove.6B.300d.txt`, or of an array `[k, w]` in
        label order; see `mljax.data.files.word_vectors`.
      word_vector_size: w, for vectors that come with the classes or from a checkpoint.
      learn_unnamed: see the table; they start with N(0, 1).
      co_occurrence: path; see `mljax.data.co_occurrence.read_probabilities`. None counts the
        training labels.
      threshold: see `adjacency`.
      reweight: likewise.

    Raises:
      ValueError: for word vectors of another number of classes.
    """

    def __init__(
        self,
        num_classes: int,
        sizes: tuple[int, int],
        *,
        layer: Part = Part(name="graph_convolution"),  # noqa: B008
        word_vectors: str | Path | None = None,
        word_vector_size: int | None = None,
        learn_unnamed: bool = False,
        co_occurrence: str | Path | None = None,
        threshold: float = 0.4,
        reweight: float = 0.25,
        rngs: nnx.Rngs,
    ) -> None:
        self.vocabulary: str | None = None
        self.has_words = word_vectors is not None or word_vector_size is not None
        nodes = None if word_vectors is None else vectors_in_order(Path(word_vectors))
        if nodes is None and word_vectors is not None:
            self.vocabulary = str(word_vectors)
            word_vector_size = vector_size(Path(word_vectors))
        if nodes is None:
            size = word_vector_size or (_LEARNED_SIZE if learn_unnamed else num_classes)
            nodes = np.full((num_classes, size), np.nan)
        if nodes.ndim != 2 or len(nodes) != num_classes:
            raise ValueError(
                f"{word_vectors}: got shape {nodes.shape}, expected a row for each of "
                f"{num_classes} classes"
            )
        self.nodes = OfClasses(jnp.asarray(nodes, jnp.float32))
        self.edges = OfClasses(jnp.full((num_classes, num_classes), jnp.nan, float))
        self.learned = nnx.data(None)
        if learn_unnamed:
            self.learned = nnx.Param(normal_init(1.0)(rngs.params(), nodes.shape))
        make_layer = resolved(layer, "graph layer")
        self.layer1 = make_layer(nodes.shape[1], sizes[0], rngs=rngs)
        self.layer2 = make_layer(*sizes, rngs=rngs)
        self.co_occurrence = None if co_occurrence is None else str(co_occurrence)
        self.threshold, self.reweight = threshold, reweight

    def __call__(self, *, rngs: nnx.Rngs | None = None) -> Float[Array, "k c"]:
        """Returns the features of the classes; `rngs` feeds the layers' dropout in training."""
        x, edges = self.nodes[...], normalized_adjacency(self.edges[...])
        if self.learned is not None:
            x = jnp.where(jnp.isnan(x), self.learned[...], x)
        x = jax.nn.leaky_relu(self.layer1(x, edges, rngs=rngs), 0.2)
        return self.layer2(x, edges, rngs=rngs)

    @property
    def stored_arguments(self) -> dict[str, Any]:
        """The arguments that make the graph again without the files that it was made from."""
        size = self.nodes.shape[1]
        return {"word_vectors": None, "word_vector_size": size, "co_occurrence": None}

    def for_classes(self, classes: Classes) -> "LabelGraph":
        """Returns the graph of the classes, sharing its parameters; itself where it has one.

        Raises:
          ValueError: for other classes than those of the graph, or classes without any word vector
            where there should be some.
        """
        count = len(self.edges[...])
        if len(classes.names) != count:
            raise ValueError(
                f"the graph is over {count} classes, the data have {len(classes.names)}; a graph "
                "serves the classes of its training alone"
            )
        if self.co_occurrence is None and classes.labels is None and classes.vectors is None:
            return self
        if not _is_unknown(self.edges[...]):
            if classes.vectors is not None and not self._has(classes.vectors):
                raise ValueError("the data have other word vectors than those of the graph")
            return self
        if self.co_occurrence is None and classes.labels is None:
            return self
        if self.co_occurrence is not None:
            probabilities = read_probabilities(self.co_occurrence, count)
        else:
            probabilities = conditional_probabilities(*count_pairs(classes.labels))
        edges = adjacency(probabilities, threshold=self.threshold, reweight=self.reweight)
        graph = nnx.clone(self, variables=False)
        graph.edges = OfClasses(jnp.asarray(edges, jnp.float32))
        graph.nodes = OfClasses(jnp.asarray(self._nodes(classes, probabilities), jnp.float32))
        return graph

    def _nodes(
        self, classes: Classes, probabilities: Float[np.ndarray, "k k"]
    ) -> Float[np.ndarray, "k w"]:
        vectors = vectors_for(classes, self.vocabulary)
        nodes = np.array(self.nodes[...] if vectors is None else vectors, np.float64)
        if nodes.shape != self.nodes.shape:
            raise ValueError(
                f"word vectors: expected {list(self.nodes.shape)}, got {list(nodes.shape)}"
            )
        if self.learned is not None:
            return nodes
        if not self.has_words:
            return probabilities + np.eye(len(nodes))
        named = np.asarray(np.isfinite(nodes).all(1))
        if not named.any():
            raise ValueError(
                f"none of {len(nodes)} classes, such as {classes.names[0]!r}, has a word vector "
                f"in {self.vocabulary or 'the data'}; give others, or learn_unnamed=True"
            )
        weights = probabilities[~named][:, named]
        total = np.maximum(weights.sum(1, keepdims=True), np.finfo(float).tiny)
        nodes[~named] = weights @ nodes[named] / total
        return nodes

    def _has(self, vectors: Float[np.ndarray, "k w"]) -> bool:
        nodes = np.asarray(self.nodes[...])
        same = (nodes == vectors) if nodes.shape == vectors.shape else np.zeros(1, bool)
        return bool((same | np.isnan(vectors)).all())


def with_stored(part: Part, module: Any) -> Part:  # noqa: ANN401
    """Returns the part that makes a module again without the files that it was made from."""
    stored = {**part.kwargs, **getattr(module, "stored_arguments", {})}
    return dataclasses.replace(part, kwargs=stored)


def _is_unknown(array: Array) -> bool:
    # Shapes in place of arrays tell nothing.
    return not isinstance(array, jax.ShapeDtypeStruct) and bool(np.isnan(array).any())
