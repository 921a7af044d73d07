"""Start scripts for the servers whose own command cannot be told what the others are told."""
