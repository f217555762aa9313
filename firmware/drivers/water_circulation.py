"""The channels of a water-circulation test bed: a pump, two valves, eight sensors."""

from .base import Channel

DEVICE_TYPE = "water-circulation"

CHANNELS = (
    Channel("accelerometer1", "[g]", 0.0, 4.0),
    Channel("accelerometer2", "[g]", 0.0, 4.0),
    Channel("current", "A", 0.0, 16.0),
    Channel("pressure", "bar", -5.0, 16.0),
    Channel("temperature", "Cel", -20.0, 150.0),
    Channel("thermocouple", "Cel", -20.0, 150.0),
    Channel("voltage", "V", 0.0, 400.0),
    Channel("flow", "L/min", 0.0, 400.0),
)
