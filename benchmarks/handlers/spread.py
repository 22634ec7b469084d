"""Make as many children as `count` says: child i squares the number i."""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///


def handle(arguments, ctx):
    ctx.map_to("item")
    for number in range(dict(arguments)["count"]):
        yield number, number
