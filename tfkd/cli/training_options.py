"""Options of the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOut = Annotated[Path, typer.Option("--out", help=".keras file to write.")]
TeacherFile = Annotated[
    Path, typer.Option("--teacher", help="Trained teacher: a .keras or .h5 file that returns logits or probabilities.")
]
TeacherRange = Annotated[
    str | None,
    typer.Option(help="LOW,HIGH that the teacher expects for the pixels 0 and 255, such as 0,1. Default: 0,255."),
]
TeacherPreprocess = Annotated[
    str | None,
    typer.Option(
        help="preprocess_input of keras.applications that the teacher expects, such as tf, caffe or resnet50."
    ),
]
StudentRange = Annotated[
    str | None,
    typer.Option(help="LOW,HIGH that the student's file expects for the pixels 0 and 255. Default: 0,255."),
]
StudentPreprocess = Annotated[
    str | None, typer.Option(help="preprocess_input of keras.applications that the student's file expects.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training split.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples per training step.")]
LearningRate = Annotated[float, typer.Option(min=1e-12, help="Highest learning rate; see --schedule.")]
Augment = Annotated[
    str, typer.Option(help="Augmentation of images: none, or crop_flip (padding, random crop and flip).")
]
