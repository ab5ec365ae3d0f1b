"""Why distillation costs accuracy on spoken digits: remedies at equal numbers of steps, on the validation recordings.

A student of eight frequency bands learns with and without a teacher of log-mel spectrograms of the same recordings. The
remedies: other temperatures and weights, logit standardization, a teacher that was stopped early, masked frames and
bands of the student's input alone, and views, which are shifted recordings that both see. The teacher's logits are
computed once. A fifth of the training recordings is set aside for validation; the test recordings are not read.

    python tools/bench/cross_modal.py spoken_digits.npz --seeds 3 --out runs/cross_modal
    python tools/bench/cross_modal.py spoken_digits.npz --student gru --optimizer adam --learning-rate 0.001
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
from equal_budget import Row, Rows, chosen, file_name, spread

import tfkd
from tfkd.data import Splits
from tfkd.distillation import training_defaults
from tfkd.distillation.training import accuracy, fit
from tfkd.distillation.training_config import TrainingConfig
from tfkd.tasks import CLASSIFICATION

sys.path.insert(0, str(Path(__file__).parents[1]))
from spoken_digits import spectrogram

BANDS, LOG_MEL = ({"window": 320, "hop": 320, "bands": 8}, {"window": 200, "hop": 160, "bands": 40})
VIEWS, LARGEST_SHIFT = 4, 800  # samples at 8 kHz: a tenth of a second
EARLY = 0.3  # share of the teacher's epochs


@dataclasses.dataclass(frozen=True)
class Remedy:
    """How a student is trained.

    Args:
        alpha: Weight of the distillation loss; 0 for a student alone.
        temperature: Temperature of the loss.
        standardized: Whether logits are standardized.
        early: Whether the teacher was stopped early.
        views: Whether both see shifted recordings.
        masks: Whether frames and bands of the student's input are masked.
    """

    alpha: float = 0.7
    temperature: float = 4.0
    standardized: bool = False
    early: bool = False
    views: bool = False
    masks: bool = False


CONTESTANTS = {
    "student alone": Remedy(alpha=0.0),
    "KD, T = 4, alpha = 0.7": Remedy(),
    "T = 2": Remedy(temperature=2.0),
    "T = 1": Remedy(temperature=1.0),
    "alpha = 0.3": Remedy(alpha=0.3),
    "teacher stopped early": Remedy(early=True),
    "student alone, views": Remedy(alpha=0.0, views=True),
    "views": Remedy(views=True),
    "logit standardization": Remedy(standardized=True),
    "student alone, masks": Remedy(alpha=0.0, masks=True),
    "masks of the student's input": Remedy(masks=True),
}


def main() -> None:
    """Reads the options, computes the missing rows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="see tools/spoken_digits.py")
    parser.add_argument("--student", choices=("ds_cnn", "gru"), default="ds_cnn")
    parser.add_argument("--optimizer", help="default: by the model, as in recipes")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--teacher-epochs", type=int, default=30)
    parser.add_argument("--teacher-filters", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--out", type=Path, default=Path("runs/cross_modal"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    bench.rows.fill(chosen(options), bench.run)
    print(bench.table())


class Bench:
    """The recordings, the teacher's logits and the rows of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        budget = ("student", "optimizer", "learning_rate", "epochs", "teacher_epochs", "teacher_filters")
        self.rows = Rows(options.out, {name: getattr(options, name) for name in budget})
        with np.load(options.recordings, allow_pickle=False) as archive:
            x, y = archive["x_train"].astype("float32"), archive["y_train"]
        order = np.random.default_rng(0).permutation(len(x))
        held, kept = order[: len(x) // 5], order[len(x) // 5 :]
        self.y, self.y_val = y[kept], y[held]
        self.views, self.val = [shifted(x[kept], view) for view in range(VIEWS)], x[held]

    def run(self, name: str, seed: int, title: str) -> Row:
        """Trains one student; its accuracy on the validation recordings after the last epoch."""
        remedy = CONTESTANTS[name]
        copies = VIEWS if remedy.views or remedy.masks else 1
        heard = self.views[:copies] if remedy.views else [self.views[0]] * copies
        logits = self.logits(early=remedy.early, views=remedy.views) if remedy.alpha else None
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        splits = self.splits(heard, BANDS, flat=self.options.student == "gru", masks=remedy.masks)
        options = {"filters": 12} if self.options.student == "ds_cnn" else {}
        student = tfkd.models.build(self.options.student, splits.train.input_shape, 10, **options)
        config = TrainingConfig(
            epochs=self.options.epochs // copies,
            optimizer=self.options.optimizer,
            learning_rate=self.options.learning_rate,
        )
        config = training_defaults.complete(config, student, CLASSIFICATION)
        if logits is None:
            fit(student, splits, config, seed=seed)
        else:
            store = tfkd.SoftLabels.create(f"memory://{file_name(name, seed)}", splits.train.ids, 10)
            store.write(splits.train.ids, np.resize(logits, (len(splits.train), 10)))
            soft = tfkd.losses.SoftTarget(remedy.temperature)
            if remedy.standardized:
                soft = tfkd.losses.StandardizedSoftTarget()
            distiller = tfkd.Distiller(student, store, alpha=remedy.alpha, soft_loss=soft)
            fit(distiller, splits, config, seed=seed, soft_labels=store)
        return {"validation": accuracy(student, splits.val)}

    def logits(self, *, early: bool, views: bool) -> np.ndarray:
        """The teacher's logits of the training recordings, or of all shifted ones; computed once."""
        options = self.options
        name = f"logits-{options.teacher_filters}-{options.teacher_epochs}-{'early' if early else 'late'}.npy"
        if not (options.out / name).exists():
            epochs = round(options.teacher_epochs * EARLY) if early else options.teacher_epochs
            keras.utils.set_random_seed(0)
            splits = self.splits(self.views[:1], LOG_MEL)
            teacher = tfkd.models.ds_cnn(splits.train.input_shape, 10, filters=options.teacher_filters)
            config = training_defaults.complete(TrainingConfig(epochs=epochs), teacher, CLASSIFICATION)
            fit(teacher, splits, config)
            print(f"{name}: teacher {accuracy(teacher, splits.val):.2%} on validation", flush=True)
            heard = self.splits(self.views if not early else self.views[:1], LOG_MEL).train.x
            np.save(options.out / name, teacher.predict(heard, batch_size=256, verbose=0))
        found = np.load(options.out / name)
        return found if views else found[: len(self.y)]

    def splits(
        self, heard: list[np.ndarray], setting: dict[str, int], *, flat: bool = False, masks: bool = False
    ) -> Splits:
        """Features of recordings for training and validation, normalized by those of the training."""
        train = [spectrogram(x, **setting) for x in heard]
        val, mean, deviation = spectrogram(self.val, **setting), train[0].mean(), train[0].std()
        features = [(x - mean) / deviation for x in (*train, val)]
        if masks:
            features[1:-1] = [masked(x, seed) for seed, x in enumerate(features[1:-1])]
        features = [x[..., 0] if flat else x for x in features]
        made = tfkd.data.from_arrays(
            (np.concatenate(features[:-1]), np.tile(self.y, len(train))), (features[-1], self.y_val), validation=0.0
        )
        return Splits(made.train, made.test, made.test)

    def table(self) -> str:
        """Mean and standard deviation over the seeds."""
        lines = [f"{'':34}{'validation, %':>16}{'seeds':>7}"]
        for name in CONTESTANTS:
            found = [100 * row["validation"] for row in self.rows.finished() if row["name"] == name]
            if found:
                lines.append(f"{name:34}{spread(found, 2):>16}{len(found):>7}")
        return "\n".join(lines)


def shifted(x: np.ndarray, view: int) -> np.ndarray:
    """Recordings [N, samples], each shifted at random with zeros at the end; view 0 is unchanged."""
    if not view:
        return x
    found = np.zeros_like(x)
    for row, shift in enumerate(np.random.default_rng(view).integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, len(x))):
        kept = x[row, max(0, -shift) : x.shape[1] - max(0, shift)]
        found[row, max(0, shift) : max(0, shift) + len(kept)] = kept
    return found


def masked(x: np.ndarray, seed: int) -> np.ndarray:
    """Features [N, T, F, 1] with three neighbouring frames and one band of each sample at the mean, 0."""
    rng, found = np.random.default_rng(seed), x.copy()
    frames, bands = rng.integers(0, x.shape[1] - 2, len(x)), rng.integers(0, x.shape[2], len(x))
    for row, (frame, band) in enumerate(zip(frames, bands, strict=True)):
        found[row, frame : frame + 3] = 0
        found[row, :, band] = 0
    return found


if __name__ == "__main__":
    main()
