"""Real time: the product's own driver over HTTP, before the simulation's own models of servers.

The server in each run is the very object that the simulation uses, on a real clock and behind a real HTTP
door, in a process of its own: what differs between the two is the driver, the network and the machine.
"""
