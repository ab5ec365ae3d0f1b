"""The tests of tfkd, in the rooms of the code that they test."""
