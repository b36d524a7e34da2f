"""Vectors -> the best rows: exact search, the inverted file of faiss, near-duplicates dropped. Knows no bundle, encoder
or photo."""
