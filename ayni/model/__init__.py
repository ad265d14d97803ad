"""The Llama 2 transformer: shapes, flat layout, attention, heads, and weights in and out."""
