"""Other people's files as records, and records as theirs."""
