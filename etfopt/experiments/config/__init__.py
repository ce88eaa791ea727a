"""The typed configuration of a training run: sections, checks, reading and writing."""

from etfopt.experiments.config._data import DataConfig
from etfopt.experiments.config._model import HEADS, BackboneConfig, HeadConfig, LossConfig
from etfopt.experiments.config._run import TrainConfig, build_head, read_config
from etfopt.experiments.config._training import OptimizerConfig, ScheduleConfig, TrainingConfig

__all__ = [
    "HEADS",
    "BackboneConfig",
    "DataConfig",
    "HeadConfig",
    "LossConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainingConfig",
    "build_head",
    "read_config",
]
