"""A telephone campaign on real data: whom to call, tuned while the calls go on."""
