"""Virtual time: the product's own controllers against models of servers, to the digit repeatable.

A room of the bench, not of ``core``: it holds the random generator and the event queue, and nothing of the
product imports it. Hours of traffic take seconds of CPU, since only events cost anything.
"""
