"""The fields of a contract, written out for type checkers: those of `tfkd.validation.limits`, in the same order."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralLimits:
    """Limits on the accuracy of a classification, on size and on time, see `Contract`."""

    min_accuracy: float | None = None
    max_accuracy_drop: float | None = None
    max_drop_from_teacher: float | None = None
    min_gain_over_alone: float | None = None
    min_agreement: float | None = None
    max_bytes: int | None = None
    max_bytes_ratio_to_teacher: float | None = None
    max_arena_bytes: int | None = None
    max_ram_bytes: int | None = None
    max_flash_bytes: int | None = None
    max_instructions: int | None = None
    max_p90_ms: float | None = None
    max_divergence_steps: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricLimits(GeneralLimits):
    """Limits on the metrics of tasks but the accuracy. None means no limit.

    Args:
        min_<metric>: Minimum on the test split of a metric whose larger values are better, in percent; of `r2` a number
            up to 1. `max_<metric>_drop` and `max_<metric>_drop_from_teacher` are the maximum drop against the reference
            model and against the teacher, in percentage points.
        max_<metric>: Maximum of a metric whose smaller values are better: `mae`, `rmse` and `reconstruction_mse` in the
            unit of the values, `false_accepts_per_hour`, and `ece` and `eer` in percent. `max_<metric>_increase` and
            `max_<metric>_increase_from_teacher` are the maximum increase.
    """

    min_macro_f1: float | None = None
    max_macro_f1_drop: float | None = None
    max_macro_f1_drop_from_teacher: float | None = None
    max_ece: float | None = None
    max_ece_increase: float | None = None
    max_ece_increase_from_teacher: float | None = None
    min_roc_auc: float | None = None
    max_roc_auc_drop: float | None = None
    max_roc_auc_drop_from_teacher: float | None = None
    min_pr_auc: float | None = None
    max_pr_auc_drop: float | None = None
    max_pr_auc_drop_from_teacher: float | None = None
    min_f1: float | None = None
    max_f1_drop: float | None = None
    max_f1_drop_from_teacher: float | None = None
    min_map: float | None = None
    max_map_drop: float | None = None
    max_map_drop_from_teacher: float | None = None
    min_miou: float | None = None
    max_miou_drop: float | None = None
    max_miou_drop_from_teacher: float | None = None
    min_dice: float | None = None
    max_dice_drop: float | None = None
    max_dice_drop_from_teacher: float | None = None
    min_ap50: float | None = None
    max_ap50_drop: float | None = None
    max_ap50_drop_from_teacher: float | None = None
    min_pck: float | None = None
    max_pck_drop: float | None = None
    max_pck_drop_from_teacher: float | None = None
    min_oks_ap: float | None = None
    max_oks_ap_drop: float | None = None
    max_oks_ap_drop_from_teacher: float | None = None
    max_mae: float | None = None
    max_mae_increase: float | None = None
    max_mae_increase_from_teacher: float | None = None
    max_rmse: float | None = None
    max_rmse_increase: float | None = None
    max_rmse_increase_from_teacher: float | None = None
    min_r2: float | None = None
    max_r2_drop: float | None = None
    max_r2_drop_from_teacher: float | None = None
    min_pauc: float | None = None
    max_pauc_drop: float | None = None
    max_pauc_drop_from_teacher: float | None = None
    max_reconstruction_mse: float | None = None
    max_reconstruction_mse_increase: float | None = None
    max_reconstruction_mse_increase_from_teacher: float | None = None
    min_frame_accuracy: float | None = None
    max_frame_accuracy_drop: float | None = None
    max_frame_accuracy_drop_from_teacher: float | None = None
    min_event_f1: float | None = None
    max_event_f1_drop: float | None = None
    max_event_f1_drop_from_teacher: float | None = None
    max_false_accepts_per_hour: float | None = None
    max_false_accepts_per_hour_increase: float | None = None
    max_false_accepts_per_hour_increase_from_teacher: float | None = None
    min_recall_at_1: float | None = None
    max_recall_at_1_drop: float | None = None
    max_recall_at_1_drop_from_teacher: float | None = None
    min_recall_at_5: float | None = None
    max_recall_at_5_drop: float | None = None
    max_recall_at_5_drop_from_teacher: float | None = None
    max_eer: float | None = None
    max_eer_increase: float | None = None
    max_eer_increase_from_teacher: float | None = None
