-- Yield (word, 1) for every word of every text.
--
-- /// mr
-- handler_type = "mapper"
-- required_capability = "none"
-- ///

function handle(arguments, ctx)
  for name, text in arguments do
    for word in text:lower():gmatch("%a+") do yield(word, 1) end
  end
end
