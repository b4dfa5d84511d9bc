"""What `--tasks` means: shipped tasks, named suites, files and code of one's own; what is known of each."""
