"""Histories: what clients did and saw, as JSON lines, and the rules that must hold of them whatever broke meanwhile.

`events` has the lines, `checker` reads them in order and says what was violated. Used by the fault campaign and by
the simulation. It must never know how a history came about: no clock, no process, no product.
"""
