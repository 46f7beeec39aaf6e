// Replies to a text and numbers with what it made of them, by way of buffers, compression in other threads and JSON.
'use strict';
const http = require('http');
const zlib = require('zlib');
const crypto = require('crypto');

function answer(request, unpacked) {
  const sorted = Float64Array.from(request.numbers).sort();
  const words = unpacked.toString().split(' ');
  const seen = new Map();
  for (const word of words) seen.set(word, (seen.get(word) || 0) + 1);
  const pieces = words.map((word) => Buffer.from(word));
  return JSON.stringify({
    name: request.name,
    smallest: sorted[0],
    largest: sorted[sorted.length - 1],
    words: words.length,
    different: seen.size,
    bytes: Buffer.concat(pieces).length,
    hash: crypto.createHash('sha256').update(unpacked).digest('hex'),
    text: words.reverse().join(' '),
  });
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = JSON.parse(Buffer.concat(parts).toString());
    zlib.deflate(body.text, { level: 1 }, (failed, packed) => {
      if (failed) throw failed;
      zlib.inflate(packed, (failedToo, unpacked) => {
        if (failedToo) throw failedToo;
        response.end(answer(body, unpacked));
      });
    });
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
