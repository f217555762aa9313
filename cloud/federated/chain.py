"""A run's rounds as transactions: what is said of them on the chain."""

from __future__ import annotations

from cloud.errors import ModelError
from fog_node.protocol.errors import ProtocolError
from fog_node.protocol.training_rounds import Privacy, SiteUpdate, TrainingRound

from .run_files import RoundRecord, Settings


def body_of(settings: Settings, record: RoundRecord) -> TrainingRound:
    """Make the body of a round's transaction.

    Raises:
        ModelError: the record is not one that the chain takes.
    """
    privacy = None
    if settings.noise is not None and settings.clip is not None:
        assert record.epsilon is not None and record.delta is not None  # noqa: PT018 - as noise
        privacy = Privacy(settings.noise, settings.clip, record.epsilon, record.delta)
    metrics = () if record.rmse is None else (("rmse_before", record.rmse),)
    try:
        body = TrainingRound(
            run=bytes.fromhex(settings.run),
            round=record.round,
            task=settings.task,
            strategy=settings.strategy,
            secure=settings.masks is not None,
            before=bytes.fromhex(record.before),
            after=bytes.fromhex(record.after),
            updates=tuple(
                SiteUpdate(
                    one.site,
                    None if one.member is None else bytes.fromhex(one.member),
                    None if one.update is None else bytes.fromhex(one.update),
                    one.examples,
                )
                for one in sorted(record.sites, key=lambda one: one.site)
            ),
            absent=tuple(sorted(record.absent)),
            metrics=metrics,
            privacy=privacy,
            time=record.time,
        )
        return TrainingRound.decode(body.encode())
    except (ProtocolError, ValueError) as error:
        raise ModelError(
            f"round {record.round} of run {settings.run}: {error}", "begin another run"
        ) from error
