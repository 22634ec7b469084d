"""What each port promises, as tests: one class of promises per port, one small subclass per adapter."""
