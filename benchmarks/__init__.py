"""What qulo costs and how fast it is, side by side with NATS in the same run on the same machine.

    python -m benchmarks [--quick] [--only NAME ...] [--repeat N] [--json FILE]

Python at both ends, a process of its own for each publisher, subscriber, requester and responder, loopback
only, limits as shipped. Every message is counted at every subscriber: a figure with messages missing is no
figure.

    cases.py       what is measured, how many messages, and the targets: a literal table
    driver.py      one measurement: starts a server and its peers, tells them to go, adds up what they report
    servers.py     qulod, qagent and nats-server in a temporary directory
    peers.py       the publisher, subscriber, requester and responder processes, one code for both systems
    flooding.py    the process that sends a hub garbage
    qulo_side.py   the few lines that differ: qulo's client
    nats_side.py   the few lines that differ: nats-py
    returning.py   how long many links take to come back after a restart; links.py is one process of them
    idle.py        what an idle agent takes, and how long `qulo --version` does
    store.py       the store of durable streams alone, on disk: `python -m benchmarks.store`
    table.py       medians, ratios, verdicts, and the one table
"""
