"""The whole loop on one machine: five fog nodes, real boards' firmware, one trained model."""
