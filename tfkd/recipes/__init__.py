"""Whole workflows: a recipe file, the pipeline that runs it, and the examination before it."""
