"""C from what a sensor gives to the input of a model: sounds of a microphone and images of a camera.

Integers only, no allocation, streaming: a sound in any number of samples at a time, an image row by row. The C computes
what `tfkd.data` computed for the training: images bit for bit, features of sounds to a noise below -60 dB.
"""
