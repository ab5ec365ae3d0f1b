"""Validation of .tflite models on targets, the contract and its verdict, and the causes of accuracy loss."""
