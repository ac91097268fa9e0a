"""blackopt moves a business metric that nobody can differentiate."""
