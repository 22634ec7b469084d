"""Add multisets of tokens, on a worker that offers `adder`."""
# /// mr
# handler_type = "reducer"
# required_capability = "adder"
# ///


def handle(results, ctx):
    for token, counts in results:
        yield token, sum(counts)
