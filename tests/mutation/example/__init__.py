"""A file and its tests that the mutation runner is proved on."""
