"""The published systems, one file a code base; a new one is its file and one line here.

They are asked in this order whether a file is theirs, so a head of its own stands before the
backbones that it sits on.
"""

from converters.systems import (
    aam,
    csra,
    efficientnet_v2,
    kmcl,
    ml_decoder,
    ml_gcn,
    mulcon,
    query2label,
    resnet,
    supcon,
    tresnet,
)
from converters.systems.system import System

SYSTEMS: dict[str, System] = {
    "aam": aam.SYSTEM,
    "ml_gcn": ml_gcn.SYSTEM,
    "kmcl": kmcl.SYSTEM,
    "ml_decoder": ml_decoder.SYSTEM,
    "query2label": query2label.SYSTEM,
    "csra": csra.SYSTEM,
    "mulcon": mulcon.SYSTEM,
    "tresnet": tresnet.SYSTEM,
    "efficientnet_v2": efficientnet_v2.SYSTEM,
    "resnet": resnet.SYSTEM,
    "supcon": supcon.SYSTEM,
}
