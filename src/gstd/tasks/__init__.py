"""Jobs, tasks and attempts: their states, and ``advance``, the one function that moves them."""
