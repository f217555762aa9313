"""Collects sealed readings, trains models on them, and releases the models to the boards.

Imports fog_node.protocol and fog_node.client, and nothing else of Fogline.
"""

import os

# TensorFlow's notes of each step would bury what a command says; its errors still come.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
