"""The typed configuration of a training run: sections, checks, reading and writing."""

from etfopt.experiments.settings._data import DataConfig
from etfopt.experiments.settings._model import HEADS, BackboneConfig, HeadConfig, LossConfig
from etfopt.experiments.settings._run import TrainConfig, build_head, read_config
from etfopt.experiments.settings._training import OptimizerConfig, ScheduleConfig, TrainingConfig

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
