"""From a Keras model to a .tflite: conversion, calibration, quantization, and what a .tflite file contains."""
