// The same as peer.py by `ws` of Node.js, without the name of a library: peer.js ROLE WHERE
const WebSocket = require("ws");
const [role, where] = process.argv.slice(2);
const MESSAGES = ["text", "x".repeat(70_000), require("crypto").randomBytes(300_000), ""];
const SILENCE = 2200;

function echo(socket) {
  socket.on("message", (message, isBinary) => socket.send(message, {binary: isBinary}));
}

if (role === "serve") {
  new WebSocket.Server({host: "127.0.0.1", port: Number(where), perMessageDeflate: {threshold: 0}}).on("connection", echo);
} else {
  const socket = new WebSocket(where, {perMessageDeflate: role === "talk"});
  socket.on("error", error => { throw error; });
  socket.on("close", code => console.log(code));
  if (role === "echo") {
    echo(socket);
  } else {
    let number = 0;
    const say = () => number < MESSAGES.length ? socket.send(MESSAGES[number]) : socket.close(1000);
    socket.on("open", say);
    socket.on("message", message => {
      if (!Buffer.from(MESSAGES[number]).equals(message)) throw new Error(`message ${number} came as ${message.length} bytes`);
      number += 1;
      setTimeout(say, number === 1 ? SILENCE : 0);
    });
  }
}
