"""One trainer that fits session after session, from wherever a run starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from etfopt.experiments.data import batches
from etfopt.experiments.data.sessions import Session
from etfopt.experiments.training._run_folder import Start
from etfopt.experiments.training.classifier import Classifier
from etfopt.experiments.training.shares import share


def fit_sessions(trainer: pl.Trainer, model: Classifier, sessions: Sequence[Session], start: Start) -> None:
    """Train what is left of a run.

    A run that resumes enters all sessions again, so that its head has the classes of its checkpoint. One that resumes
    at the end of a session loads the checkpoint there and trains no epoch of it.
    """
    for session in sessions:
        model.enter(session)
        if session.end >= start.epoch:
            _fit(trainer, model, session, start)


def _fit(trainer: pl.Trainer, model: Classifier, session: Session, start: Start) -> None:
    """Measure, unless that was done before, then train a session; an interruption surfaces as one."""
    config, rank, size = model.config, trainer.global_rank, trainer.world_size
    train, test = session.splits()
    samples = (session.number and config.sessions.batch_size) or config.training.batch_size
    whole = batches(train, samples, config.seed, config.data.batches)
    training = share(whole, rank, size, training=True)
    order: Any = training.sampler
    resumed = session.start < start.epoch
    # Lightning says so, too, but after it has started the loader
    order.set_epoch(start.epoch if resumed else session.start)
    splits = [share(batches(split), rank, size, training=False) for split in (train, test)]
    trainer.fit_loop.max_epochs = session.end
    # Lightning casts after it has loaded a checkpoint, which would round 64-bit weights to 32
    trainer.strategy.precision_plugin.convert_module(model)
    try:
        if not (start.epoch or session.number):
            trainer.validate(model, splits, verbose=False)
        trainer.fit(model, training, splits, ckpt_path=start.checkpoint if resumed else None, weights_only=True)
    except SIGTERMException:
        raise
    except SystemExit:
        # Lightning turns Ctrl-C into a bare exit
        raise KeyboardInterrupt from None
