"""Sockets: carries out what `qulo.protocol` decides, inside pyzmq's asyncio integration. The only user of zmq."""
