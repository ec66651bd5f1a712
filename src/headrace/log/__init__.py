"""Topics: append, read, groups. The nouns are in `define` and `port`; `run.open_log` opens one."""
