#!/usr/bin/env python3
"""Converts a Keras model to .tflite, as `tfkd convert` does.

tools/convert_tflite.py student.keras student.tflite --calibration digits
"""

import sys

from tfkd import cli

if __name__ == "__main__":
    cli.app(["convert", *sys.argv[1:]], prog_name="convert_tflite.py")
