"""From a Keras model to a .tflite: conversion, calibration, quantization and the metadata of a .tflite."""
