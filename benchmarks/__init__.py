"""How it is measured: cases, records, the ruler, the runner and the command line."""
