"""How far to trust what people and judges said: agreement, screening, consistency, statistics of batches."""
