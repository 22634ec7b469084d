"""Make a child of each argument."""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///


def handle(arguments, ctx):
    ctx.map_to("item")
    yield from arguments
