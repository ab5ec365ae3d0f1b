"""Training a student on a teacher: the Distiller, its teachers and feature pairs, and stored soft labels."""
