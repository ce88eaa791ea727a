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
    "SETTINGS",
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
SETTINGS = (
    *("seed",),
    *("data.name", "data.batches", "data.augmentation", "data.subset", "data.test_subset", "data.imbalance"),
    *("data.imbalance_factor", "data.label_noise", "data.seed", "data.size", "data.test_share"),
    *("data.memory_gib", "data.cache", "data.root", "data.download", "data.classes", "data.samples"),
    *("backbone.name", "backbone.width", "backbone.dim", "backbone.stem", "backbone.affine"),
    *("head.name", "head.temperature", "head.rotation", "head.delta", "head.averaging"),
    *("head.implicit_gradient", "head.freeze_after", "head.solve_every", "head.method", "head.shrinkage"),
    *("head.evaluation_shrinkage", "head.classify_first"),
    *("loss.name",),
    *("optimizer.name", "optimizer.learning_rate", "optimizer.momentum", "optimizer.nesterov"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.weight_decay", "optimizer.decay", "optimizer.gain"),
    *("schedule.name", "schedule.warmup", "schedule.milestones", "schedule.decay", "schedule.interval"),
    *("training.epochs", "training.batch_size", "training.gradient_clip"),
)
SOLVERS = (
    *("procrustes", "procrustes-svd", "procrustes-gram", "procrustes-newton-schulz"),
    *("trust-region", "trust-region-autograd", "trust-region-restart"),
    *("conjugate-gradient", "steepest-descent", "clarabel", "scs"),
)
