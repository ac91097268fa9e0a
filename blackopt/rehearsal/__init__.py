"""A campaign tried before it is run: the real runner, a simulated production, and a clock that only jumps."""
