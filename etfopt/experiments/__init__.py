"""Training runs on real images: data, networks, one run, many runs, and what they show."""

from etfopt.errors import require_extra

require_extra(
    "experiments", "pydantic", "torch", "torchmetrics", "pytorch_lightning", "filelock", "sklearn", "matplotlib"
)
