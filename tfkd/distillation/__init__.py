"""Distillation: the Distiller, teachers, feature pairs, training runs and stored soft labels."""
