"""Random and hostile inputs for the readers and the API: see `fuzzing.run`."""
