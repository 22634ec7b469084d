"""The shared file system, on fsspec. `opening.py` first, then `volume.py`; Tahoe-LAFS is a driver for fsspec."""
