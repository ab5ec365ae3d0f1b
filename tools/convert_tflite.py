#!/usr/bin/env python3
"""Turns a Keras model into a .tflite: `tools/convert_tflite.py student.keras student.tflite --calibration digits`."""

import sys

from tfkd import cli

if __name__ == "__main__":
    cli.app(["convert", *sys.argv[1:]], prog_name="convert_tflite.py")
