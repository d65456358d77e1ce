"""How it is shown: records in, a string out."""
