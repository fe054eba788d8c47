"""How the gain of one side over another is told, over seeds."""

import math
from collections.abc import Sequence

from finetune import metrics


def told_gain(differences: Sequence[float]) -> str:
    """The mean of paired differences, and the 95 % interval of Student's t if there are three or more."""
    gain = metrics.over_seeds(differences)
    interval = "" if math.isnan(gain.low) else f" ({gain.low:+.2f} to {gain.high:+.2f})"
    return f"{gain.mean:+.2f}{interval}"
