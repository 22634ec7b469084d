"""mr: a distributed MapReduce job service.

The building, from the ground up; a floor imports only lower ones, and a linter checks it:

    6  processes   wiring, http/, worker/, cli/     the only floor that knows everything
    5  flows                                        loaders that translate into jobs (not built yet)
    4  services/   what the product does            3  adapters/   one vendor each
    2  ports/      interfaces to the outside; above them collections/, queues and trees over any store
    1  rules/      pure decisions
    0  ground      errors, settings, clock, codec, model/
"""

__version__ = "0.1.0"
