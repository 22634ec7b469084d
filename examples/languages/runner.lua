-- Runs one handler in Lua: a file that defines `function handle(input, ctx)`. It calls `yield(key, value)` for each
-- pair, and goes through its input with `for key, value in input do`.

local json = require "dkjson"
local out = io.stdout
io.stdout = io.stderr
io.output(io.stderr)
function print(...)
  local words = table.pack(...)
  for at = 1, words.n do words[at] = tostring(words[at]) end
  io.stderr:write(table.concat(words, "\t"), "\n")
end

local null = setmetatable({}, { __tostring = function() return "null" end, __tojson = function() return "null" end })

local function check(value, depth)
  if type(value) == "number" and (value ~= value or value == math.huge or value == -math.huge) then
    error({ type = "NotSerialisable", message = "JSON cannot hold " .. tostring(value) }, 0)
  elseif type(value) == "table" and value ~= null then
    if depth > 1000 then error({ type = "NotSerialisable", message = "a value is nested too deeply" }, 0) end
    for _, part in pairs(value) do check(part, depth + 1) end
  elseif type(value) == "function" or type(value) == "userdata" or type(value) == "thread" then
    error({ type = "NotSerialisable", message = "JSON cannot hold a " .. type(value) }, 0)
  end
end

local function encode(value)
  if value == nil then return "null" end
  check(value, 0)
  -- dkjson writes every number with the same digits as Lua, but whole floats without their point.
  if math.type(value) == "float" and value == math.floor(value) and math.abs(value) < 1e15 then
    return string.format("%.1f", value)
  end
  return json.encode(value)
end

local function say(verb, ...)
  local words = table.pack(...)
  for at = 1, words.n do words[at] = encode(words[at]) end
  out:write('["', verb, '"', words.n > 0 and "," or "", table.concat(words, ","), "]\n")
end

local function hear()
  local line = io.stdin:read("L")
  if not line then os.exit(0) end
  return json.decode(line, 1, null)
end

-- The input, as an iterator: the line that was read last waits, for `more` may follow it.
local function reader()
  local waiting, is_over
  return function()
    while not is_over do
      local message = hear()
      local before = waiting
      if message[1] == "more" then
        for _, value in ipairs(message[2]) do table.insert(before[3], value) end
      else
        is_over = message[1] == "end"
        waiting = not is_over and message or nil
        if before then return before[2], before[3] end
      end
    end
  end
end

function yield(key, value) say("out", key, value) end

local function context(run)
  local session = {}
  for _, pair in ipairs(run.session) do session[pair[1]] = pair[2] end
  run.map_to = function(step) say("map", step) end
  run.get = function(key)
    if session[key] == nil then error("the session has no " .. key, 2) end
    return session[key]
  end
  run.set = function(key, value)
    say("set", key, value)
    session[key] = value
  end
  run.null = null
  return run
end

while true do
  local run = hear()[2]
  local ok, problem = xpcall(function()
    if not handle then
      local file = assert(io.open(arg[1]))
      -- A path would be cut in tracebacks.
      assert(load(file:read("a"), "=handler(" .. os.getenv("MR_HANDLER") .. ")"))()
      file:close()
    end
    local input = reader()
    handle(input, context(run))
    for _ in input do end
  end, function(problem)
    if type(problem) == "table" then return problem end
    return { type = "error", message = tostring(problem), stack = debug.traceback(tostring(problem), 2) }
  end)
  if ok then
    say("done")
  else
    say("failed", problem.type, problem.message, problem.stack or problem.message)
  end
  out:flush()
end
