"""What the system promises, as pure code: no sockets, no clock, no randomness, no disk.

Time and ids come in as arguments, decisions go out as data; `qulo.net` carries them out. Start with `wire`
(the grammar), then `channel` (what is never lost between two ends), `hub`, `link` and `relay`.
"""
