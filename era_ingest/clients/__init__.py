"""The network and the models: one embedding client over several backends."""
