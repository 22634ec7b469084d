"""Square each number that is given; a single child's worth of work is one multiplication."""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///


def handle(arguments, ctx):
    for _, number in arguments:
        yield "sum", number * number
