-- For wrk: the requests of a file in turns, and every reply compared with those that the file has.
local turn, requests, known, threads = 0, {}, {}, {}
right, wrong = 0, 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  for _, exchange in ipairs(dofile(arguments[1])) do
    requests[#requests + 1] = wrk.format(exchange.method, exchange.path, exchange.headers, exchange.body)
    known[exchange.reply] = true
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function response(status, _, body)
  if status == 200 and known[body] then right = right + 1 else wrong = wrong + 1 end
end

function done(summary)
  local good, bad, errors = 0, 0, 0
  for _, thread in ipairs(threads) do
    good, bad = good + thread:get("right"), bad + thread:get("wrong")
  end
  for _, count in pairs(summary.errors) do errors = errors + count end
  print(("checked %d right, %d wrong, %d errors, %d microseconds"):format(good, bad, errors, summary.duration))
end
