"""What a run keeps of each step beside the weights, by name.

A tracker has `init(model)`, which returns arrays; `update(arrays, outputs, batch)`, called inside
the jitted step with the head's dict and the batch; `save(arrays, classes, workdir)`, called by one
process after each epoch; and optionally `pictures(arrays, classes, workdir)`, called at the end,
which returns a line for people.
"""

from mljax.config.part import table
from mljax.trackers.class_prior import ClassPrior, prior_csv

TRACKERS = table("tracker", {"class_prior": ClassPrior})

# Functions of the class names that return an array of one value for each, for arguments of losses.
CLASS_VALUES = table("class value", {"prior_csv": prior_csv})
