"""The loop: what to do next is read from the ledger, and done through plug-ins."""
