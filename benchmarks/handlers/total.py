"""Add up the numbers of each key."""
# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///


def handle(results, ctx):
    for key, numbers in results:
        yield key, sum(numbers)
