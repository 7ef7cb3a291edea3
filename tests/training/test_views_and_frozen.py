"""Views become rows, and what is frozen stays as it is in evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch import nn

from mljax import create_model
from mljax.config import loss
from mljax.losses.contrastive import supervised_contrastive_loss
from mljax.models.arrays import split_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms

IMAGES = np.random.default_rng(0).normal(size=(4, 2, 8, 8, 3)).astype(np.float32)
BATCH = {
    "images": IMAGES,
    "labels": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]],
    "valid": np.array([True, True, True, False]),
}


@functools.cache
def _model():
    model = create_model(
        "resnet18",
        "projection",
        num_classes=3,
        head_kwargs={"size": 5},
        backbone_kwargs={"layers": (1, 0, 0, 0), "width": 4, "cifar_stem": True},
        rngs=nnx.Rngs(0),
    )
    model.backbone.stem.norm.mean[...] = jnp.linspace(-1, 1, 4)
    return model


@functools.cache
def _gradients(frozen):
    """Returns the loss, the new statistics and the gradients of SimCLR's loss."""
    terms = make_terms((loss("supervised_contrastive_loss", labels=None, reduction="mean"),), ())
    gradients = make_gradients(_model(), terms, frozen=frozen)
    _, params, statistics = split_model(_model())
    variables = {"statistics": statistics, "trackers": {}}
    program = jax.jit(gradients)
    (value, (after, _)), grads = program(params, variables, BATCH, jax.random.key(0))
    return value, after["statistics"], grads


def test_a_frozen_backbone_is_in_eval_mode_and_has_no_gradient():
    value, after, grads = _gradients(("backbone",))
    projections = _model()(jnp.asarray(IMAGES.reshape(8, 8, 8, 3)))["projections"]
    valid = jnp.asarray(BATCH["valid"].repeat(2))
    expected = supervised_contrastive_loss(projections, None, valid, views=2).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    _, _, statistics = split_model(_model())
    for path, array in statistics.items():
        np.testing.assert_array_equal(after[path], array)
    for path, gradient in grads.items():
        assert bool((gradient == 0).all()) == path.startswith("backbone."), path


def test_a_path_freezes_only_what_is_below_it():
    _, after, grads = _gradients(("backbone.stem",))
    _, _, statistics = split_model(_model())
    for path, array in statistics.items():
        assert np.array_equal(after[path], array) == path.startswith("backbone.stem."), path
    assert not grads["backbone.stem.conv.kernel"].any()
    assert grads["backbone.stages.0.0.conv1.conv.kernel"].any()


class TorchNetwork(nn.Module):
    """The network of `_model`, in training mode."""

    def __init__(self, params):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, 4, 3, padding=1, bias=False) for n in (3, 4, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.hidden, self.output = nn.Linear(4, 4), nn.Linear(4, 5)
        block = "backbone.stages.0.0"
        names = ("backbone.stem", f"{block}.conv1", f"{block}.conv2")
        for conv, name in zip(self.convs, names, strict=True):
            kernel = np.array(params[f"{name}.conv.kernel"].transpose(3, 2, 0, 1))
            conv.weight.data = torch.tensor(kernel)
        for linear, name in ((self.hidden, "head.hidden"), (self.output, "head.output")):
            linear.weight.data = torch.tensor(np.array(params[f"{name}.kernel"].T))
            linear.bias.data = torch.tensor(np.array(params[f"{name}.bias"]))

    def forward(self, x):
        x = torch.relu(self.norms[0](self.convs[0](x)))
        y = torch.relu(self.norms[1](self.convs[1](x)))
        x = torch.relu(x + self.norms[2](self.convs[2](y))).mean((2, 3))
        return nn.functional.normalize(self.output(torch.relu(self.hidden(x))), dim=1)


def _torch_losses(params, steps):
    """Returns the losses of training with the original's layout: all first views, then all others.

    HobbitLong/SupContrast main_supcon.py `train` and losses.py.
    """
    network = TorchNetwork(params)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-4)
    images = torch.tensor(np.concatenate([IMAGES[:, 0], IMAGES[:, 1]]).transpose(0, 3, 1, 2))
    classes = torch.tensor([0, 1, 2, 0] * 2)
    others = 1 - torch.eye(8)
    positives = (classes[:, None] == classes[None]) * others
    for _ in range(steps):
        rows = network(images)
        scores = rows @ rows.T / 0.1
        logs = scores - torch.log((torch.exp(scores) * others).sum(1, keepdim=True))
        loss = -(positives * logs).sum(1) / positives.sum(1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        yield loss.mean().item()


def test_training_with_views_equals_that_of_torch_and_learns():
    chosen = loss(
        "supervised_contrastive_loss", temperature=0.1, base_temperature=0.1, reduction="mean"
    )
    gradients = make_gradients(_model(), make_terms((chosen,), ()))
    transform = optax.chain(
        optax.add_decayed_weights(1e-4), optax.trace(0.9), optax.scale_by_learning_rate(0.5)
    )
    _, first, statistics = split_model(_model())
    batch = {**BATCH, "images": jnp.asarray(IMAGES), "valid": np.ones(4, bool)}

    @jax.jit
    def step(params, statistics, state):
        variables = {"statistics": statistics, "trackers": {}}
        (value, (after, _)), grads = gradients(params, variables, batch, jax.random.key(0))
        updates, state = transform.update(grads, state, params)
        return value, optax.apply_updates(params, updates), after["statistics"], state

    params, state, found = first, transform.init(first), []
    for _ in range(20):
        value, params, statistics, state = step(params, statistics, state)
        found.append(float(value))
    expected = list(_torch_losses(first, 5))
    # Later, float32 sums in another order drift apart.
    np.testing.assert_allclose(found[:5], expected, rtol=1e-4)
    # Equal projections cost the logarithm of the 7 others.
    assert found[-1] < np.log(7) - 0.3
