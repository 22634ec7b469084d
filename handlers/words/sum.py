"""
Add up the counts of each word: of one range, and then of all ranges.

**
argument_spec:
  - name: results
    type: list
handler_type: reducer
required_capability: none
"""

for word, counts in results:
    yield word, sum(counts)
