"""The settings of a training run: frozen records, checked by names and numbers alone. Nothing here imports PyTorch."""

from etfopt.experiments.settings._data import DataConfig
from etfopt.experiments.settings._machine import Machine, machine_of, require_processors
from etfopt.experiments.settings._model import BackboneConfig, HeadConfig, LossConfig
from etfopt.experiments.settings._run import TrainConfig, read_config
from etfopt.experiments.settings._sessions import SessionsConfig
from etfopt.experiments.settings._training import OptimizerConfig, ScheduleConfig, TrainingConfig
from etfopt.experiments.settings.names import HEADS

__all__ = [
    "HEADS",
    "BackboneConfig",
    "DataConfig",
    "HeadConfig",
    "LossConfig",
    "Machine",
    "OptimizerConfig",
    "ScheduleConfig",
    "SessionsConfig",
    "TrainConfig",
    "TrainingConfig",
    "machine_of",
    "read_config",
    "require_processors",
]
