-- The browser's twelve fields again, the Referer new in every request: nothing that remembers a
-- whole header block is of use here. The text around the value is built once, so that the load
-- generator stays fast. Runs after browser.lua.
local before, after
local number = 0

function init(_)
  wrk.headers["Referer"] = "https://shop.example/orders/@@@"
  local text = wrk.format("GET")
  local from, to = text:find("@@@", 1, true)
  before, after = text:sub(1, from - 1), text:sub(to + 1)
  number = os.time() % 1000000 * 10000000
end

function request()
  number = number + 1
  return before .. string.format("%016.0f", number) .. after
end
