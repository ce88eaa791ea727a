"""Names that the shell completes; the package knows them too, but takes seconds to import, and a test compares both."""

from __future__ import annotations

__all__ = [
    "ACCELERATORS",
    "AUGMENTATIONS",
    "AVERAGINGS",
    "BACKBONES",
    "BATCHES",
    "CLAIMS",
    "DATA",
    "DEVICES",
    "HEADS",
    "LOSSES",
    "METHODS",
    "OPTIMIZERS",
    "PRECISIONS",
    "PROBLEMS",
    "SCHEDULES",
    "SOLVERS",
]

ACCELERATORS = ("auto", "cpu", "gpu", "mps", "tpu")
AUGMENTATIONS = ("none", "flip-crop", "affine-crop")
AVERAGINGS = ("paper", "cumulative")
BACKBONES = ("mlp", "convnet", "convnet-flat", "resnet18", "resnet34", "resnet50", "vgg13", "free")
BATCHES = ("shuffled", "stratified")
CLAIMS = (
    *("simplex", "closed_form", "duality", "certificate", "gauge", "landscape", "gradient", "near_collapse"),
    "conditioning",
    *("free_scale", "temperature", "unconstrained_features", "fading"),
)
DATA = (
    *("digits", "mnist5k", "ufm", "cifar10", "cifar100", "stl10", "mnist", "fashion-mnist", "svhn", "emnist"),
    *("tiny-imagenet", "imagenet", "imagefolder:"),
)
DEVICES = ("cpu", "cuda", "mps")
HEADS = ("learned", "fixed", "nearest")
LOSSES = ("cross-entropy", "dot-regression")
METHODS = ("auto", "svd", "gram", "newton-schulz")
OPTIMIZERS = ("sgd", "adam", "adamw", "agd")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true")
PROBLEMS = (
    *("random", "collapsed", "rank-deficient", "imbalanced", "ill-conditioned", "proximal", "square"),
    *("square-proximal", "tight", "digits"),
)
SCHEDULES = ("constant", "cosine", "step")
SOLVERS = (
    *("procrustes", "procrustes-svd", "procrustes-gram", "procrustes-newton-schulz"),
    *("trust-region", "trust-region-autograd", "trust-region-restart"),
    *("conjugate-gradient", "steepest-descent", "clarabel", "scs"),
)
