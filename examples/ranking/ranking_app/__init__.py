"""Learning to rank by the metric itself: queries and documents, NDCG, and the rankers that are compared."""
