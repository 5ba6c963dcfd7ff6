"""What champions make: samples, galleries, comparisons, lineage."""
