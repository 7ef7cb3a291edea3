"""Losses by name; each reads what it needs from the batch and the head's dict by argument name."""

from mljax.config.part import table
from mljax.losses.angular_margin import angular_margin_loss
from mljax.losses.asymmetric import asymmetric_loss, single_label_asymmetric_loss
from mljax.losses.contrastive import label_contrastive_loss, supervised_contrastive_loss
from mljax.losses.kernel_mixture import kernel_contrastive_loss, reconstruction_loss
from mljax.losses.selective import selective_loss

LOSSES = table(
    "loss",
    {
        "asymmetric_loss": asymmetric_loss,
        "single_label_asymmetric_loss": single_label_asymmetric_loss,
        "angular_margin_loss": angular_margin_loss,
        "selective_loss": selective_loss,
        "reconstruction_loss": reconstruction_loss,
        "kernel_contrastive_loss": kernel_contrastive_loss,
        "supervised_contrastive_loss": supervised_contrastive_loss,
        "label_contrastive_loss": label_contrastive_loss,
    },
)
