// Opens a WebSocket over HTTP/2 (RFC 8441), sends a text, and prints what comes back as JSON:
// socket2.mjs URL CONNECT_PORT ROOTS_FILE TOKEN TEXT. It connects to the port on this machine.
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import tls from "node:tls";

const [address, port, roots, token, text] = process.argv.slice(2);
const url = new URL(address);
const session = http2.connect(url.origin, {
  createConnection: () =>
    tls.connect({ host: "127.0.0.1", port: Number(port), servername: url.hostname, ALPNProtocols: ["h2"], ca: readFileSync(roots) }),
});
session.on("error", fail);

function fail(error) {
  console.log(JSON.stringify({ error: String(error) }));
  process.exit(1);
}

// frame returns a masked text frame of less than 64 KiB.
function frame(opcode, payload) {
  const mask = Buffer.from([1, 2, 3, 4]);
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, 0x80 | payload.length])
    : Buffer.from([0x80 | opcode, 0x80 | 126, payload.length >> 8, payload.length & 255]);
  return Buffer.concat([head, mask, payload.map((b, i) => b ^ mask[i % 4])]);
}

session.on("remoteSettings", (settings) => {
  if (!settings.enableConnectProtocol) fail("the server offers no extended CONNECT");
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": url.pathname, ":authority": url.host,
    "sec-websocket-version": "13", authorization: `Bearer ${token}`,
  });
  let got = Buffer.alloc(0), isAccepted = false, isDone = false;
  stream.on("error", fail);
  stream.on("response", (headers) => {
    if (headers[":status"] !== 200) {
      console.log(JSON.stringify({ status: headers[":status"] }));
      session.close();
      return;
    }
    isAccepted = true;
    stream.write(frame(1, Buffer.from(text)));
  });
  stream.on("data", (data) => {
    if (!isAccepted || isDone) return; // after the answer, the other side's close frame may arrive
    got = Buffer.concat([got, data]);
    let at = 2, length = got[1] & 127;
    if (length === 126 && got.length >= 4) { length = got.readUInt16BE(2); at = 4; }
    if (got.length < at + length) return;
    console.log(JSON.stringify({ status: 200, text: got.subarray(at, at + length).toString() }));
    isDone = true;
    stream.end(frame(8, Buffer.from([3, 232])));
  });
  stream.on("close", () => session.close());
});
