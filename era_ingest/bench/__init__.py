"""Measurements that a reader can repeat: `era bench` prints what the README says."""
