-- Binary trees built and dropped, tables of strings growing and shrinking, closures and coroutines.
local state = 42
local function number(below)
  state = (state * 1103515245 + 12345) & 0x7fffffff
  return (state >> 8) % below
end

local function tree(depth)
  if depth == 0 then return {} end
  return { tree(depth - 1), tree(depth - 1) }
end
local function count(node)
  return node[1] and 1 + count(node[1]) + count(node[2]) or 1
end
local kept = tree(14)
for depth = 4, 14, 2 do
  local sum = 0
  for _ = 1, 1 << (16 - depth) do sum = sum + count(tree(depth)) end
  print("trees of depth " .. depth, sum)
end
print("kept", count(kept))

local words, sum = {}, 0
for i = 1, 250000 do
  local text = string.rep(string.char(97 + number(26)), 1 + number(90)) .. i
  words[#words + 1] = text
  if number(3) == 0 then
    local at = 1 + number(#words)
    sum = (sum * 31 + #words[at] + words[at]:byte(1)) % 1000000007
    words[at] = words[#words]
    words[#words] = nil
  end
end
table.sort(words)
print("words", #words, sum, words[1], words[#words])
print("joined", #table.concat(words, ","))

local generators = {}
for i = 1, 2000 do
  generators[i] = coroutine.wrap(function()
    for step = 1, 20 do coroutine.yield(("%d:%d"):format(i, step):rep(3)) end
  end)
end
local length = 0
for _ = 1, 20 do
  for i = 1, #generators do length = length + #generators[i]() end
end
print("coroutines", length)
