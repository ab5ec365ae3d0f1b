"""Options of the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOut = Annotated[Path, typer.Option("--out", help=".keras file to write.")]
TeacherFile = Annotated[
    Path, typer.Option("--teacher", help="Trained teacher: a .keras or .h5 file that returns logits or probabilities.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training split.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per training step.")]
LearningRate = Annotated[
    float, typer.Option(min=1e-12, help="Initial learning rate of Adam; falls to 0 along a cosine.")
]
Augment = Annotated[
    str, typer.Option(help="Augmentation of images: none, or crop_flip (padding, random crop and flip).")
]
