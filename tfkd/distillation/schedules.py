"""Settings of a distillation that change over the training steps."""

from __future__ import annotations

from collections.abc import Sequence

from keras.optimizers.schedules import LearningRateSchedule

from tfkd.distillation.features import Feature
from tfkd.distillation.outputs import Output
from tfkd.losses.loss import Setting


def scheduled_settings(outputs: Sequence[Output], features: Sequence[Feature]) -> dict[str, LearningRateSchedule]:
    """The settings that are schedules, by the name of their log.

    Args:
        outputs: Outputs whose alpha, or an attribute of whose soft losses such as `temperature`, may be a schedule.
        features: Feature pairs whose weight, or an attribute of whose loss, may be a schedule.

    Returns:
        Schedules by name. Further settings of the same name get a number: `temperature`, `temperature_1`, ...
    """
    schedules = [output.alpha for output in outputs if isinstance(output.alpha, LearningRateSchedule)]
    settings: list[tuple[str, Setting]] = [("alpha", alpha) for alpha in dict.fromkeys(schedules)]
    for loss in dict.fromkeys(loss for output in outputs for loss in output.soft_losses):
        settings += vars(loss).items()
    for feature in features:
        settings += [("feature_weight", feature.weight), *vars(feature.loss).items()]
    found: dict[str, LearningRateSchedule] = {}
    for name, setting in settings:
        if isinstance(setting, LearningRateSchedule):
            count = sum(known.rstrip("_0123456789") == name for known in found)
            found[f"{name}_{count}" if count else name] = setting
    return found
