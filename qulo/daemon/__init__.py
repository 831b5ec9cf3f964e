"""What makes a Unix daemon of a coroutine; it knows no messaging and must never learn any.

A role writes `PROGRAM = runner.Program(...)` and `main = lambda: runner.main(PROGRAM)`; see `runner`.
"""
