"""Blob stores: directories and buckets, through fsspec."""
