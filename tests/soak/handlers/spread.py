"""Map to as many children as the first of `widths` says, level by level; the last level are the leaves."""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///


def handle(arguments, ctx):
    for path, plan in arguments:
        width, *deeper = plan["widths"]
        ctx.map_to("spread" if deeper else "leaf")
        for number in range(width):
            yield f"{path}.{number}", {**plan, "widths": deeper}
