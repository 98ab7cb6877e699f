"""The headless daemon: claims tasks, runs them in the sandbox, submits signed results."""
