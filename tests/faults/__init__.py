"""The fault campaign: real daemons, programs that write down what they did and saw, and somebody who breaks things.

    python -m tests.faults --kills 500            or: make faults KILLS=500

    site.py      a master and two agents as processes, each in a network of its own where that is possible
    putter.py    programs: they write histories (`tests.history`)
    worker.py
    storm.py     a thousand links that come and go
    failing.py   the daemons, made to fail at named points, with a clock that can be set
    nemesis.py   the faults, one function each
    campaign.py  starts everything, lets the nemesis work, heals, waits until all is quiet, and asks the checker
    soak.py      the same for a long time, looking at memory, files and the WAL

Nothing here is in the product, and nothing of the product knows of it. Only processes started here are ended, by their
PID; namespaces and mounts have a prefix of their own and are removed, also those that a killed campaign left behind.
"""
