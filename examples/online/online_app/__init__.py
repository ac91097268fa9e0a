"""A shop that chooses an offer for each visitor, hours before it knows what became of it."""
