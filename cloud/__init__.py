"""Collects sealed readings, trains models on them, and releases the models to the boards.

Imports fog_node.protocol and fog_node.client, and nothing else of Fogline.
"""
