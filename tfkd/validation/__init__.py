"""How good a .tflite is on each target, whether it meets its contract, and why it is worse than the Keras model."""
