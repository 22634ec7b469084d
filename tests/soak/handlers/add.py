"""Add multisets of tokens."""
# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///


def handle(results, ctx):
    for token, counts in results:
        yield token, sum(counts)
