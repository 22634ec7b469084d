-- Add up the counts of each word.
--
-- /// mr
-- handler_type = "reducer"
-- required_capability = "none"
-- ///

function handle(results, ctx)
  for word, counts in results do
    local sum = 0
    for _, count in ipairs(counts) do sum = sum + count end
    yield(word, sum)
  end
end
