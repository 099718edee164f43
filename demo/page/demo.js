// The demo's page: what the back end saw, a live echo, tunnels against workers.

const $ = (id) => document.getElementById(id);
const ws = (path) => new WebSocket(`ws://${location.host}/back/${path}`);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function numbers(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value, bad]) => {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", bad ? "bad" : "", value));
    return pair;
  }));
}

// ---- What the back end saw -------------------------------------------------

// One value per name, several lines of a header joined as HTTP allows.
function joined(headers) {
  const found = new Map();
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    const old = found.get(key);
    found.set(key, { name: old?.name ?? name, value: old ? `${old.value}, ${value}` : value });
  }
  return found;
}

function verdict(sent, seen) {
  if (!seen) return "dropped";
  if (!sent) return "added";
  return sent.value === seen.value ? "kept" : "changed";
}

// Shown when the pointer rests on a fate.
const WHY = {
  host: "the back end's own name; ProxyPreserveHost On keeps it",
  connection: "hop by hop: it is Apache's own to its back end",
  upgrade: "hop by hop: stock Apache drops it here",
  "keep-alive": "hop by hop, never forwarded",
  te: "hop by hop, never forwarded",
  "x-forwarded-for": "by mod_proxy, unless ProxyAddHeaders Off",
  "x-forwarded-host": "by mod_proxy, unless ProxyAddHeaders Off",
  "x-forwarded-server": "by mod_proxy, unless ProxyAddHeaders Off",
};

function showTable(sentHeaders, columns) {
  const sent = joined(sentHeaders);
  const seen = columns.map((column) => joined(column.headers));
  const names = new Set([...sent.keys(), ...seen.flatMap((map) => [...map.keys()])]);
  const head = element("tr");
  head.append(element("th", "", "Header"), element("th", "", "Client sent"));
  for (const column of columns) head.append(element("th", "", column.title), element("th"));
  $("seen").tHead.replaceChildren(head);
  const rows = [...names].map((key) => {
    const row = element("tr");
    const first = sent.get(key) ?? seen.map((map) => map.get(key)).find(Boolean);
    row.append(element("td", "", first.name), element("td", sent.has(key) ? "" : "none", sent.get(key)?.value ?? "–"));
    for (const map of seen) {
      const fate = verdict(sent.get(key), map.get(key));
      row.append(element("td", map.has(key) ? "" : "none", map.get(key)?.value ?? "–"));
      const cell = element("td", `fate ${fate}`, sent.has(key) || map.has(key) ? fate : "");
      cell.title = WHY[key] ?? "";
      row.append(cell);
    }
    return row;
  });
  $("seen").tBodies[0].replaceChildren(...rows);
}

async function showHandWritten() {
  const proof = await (await fetch("proof.json")).json();
  $("seen-note").textContent = "The same handshake, sent to both sites when the demo began. Without the module the back end gets a plain GET and answers 426; with it, 101.";
  showTable(proof.sent, [
    { title: "Back end saw, WSForward Off", headers: proof.off },
    { title: "Back end saw, WSForward On", headers: proof.on },
  ]);
}

function firstMessage(socket) {
  return new Promise((resolve, reject) => {
    socket.onmessage = (event) => { resolve(JSON.parse(event.data).headers); socket.close(); };
    socket.onclose = (event) => reject(new Error(`closed with code ${event.code}`));
  });
}

async function showBrowser() {
  const port = (await (await fetch("ports.json")).json()).backend;
  $("seen-note").textContent = `Two handshakes of this browser: one straight to the back end at port ${port}, one through Apache.`;
  try {
    const [direct, through] = await Promise.all([
      firstMessage(new WebSocket(`ws://${location.hostname}:${port}/seen`)),
      firstMessage(ws("seen")),
    ]);
    // Where the two handshakes must differ by themselves: the address, and a key that is never used twice.
    const key = "(a new one each time)";
    const own = { host: location.host, "sec-websocket-key": key };
    const sent = direct.map(([name, value]) => [name, own[name.toLowerCase()] ?? value]);
    const seen = through.map(([name, value]) => [name, /^sec-websocket-key$/i.test(name) ? key : value]);
    showTable(sent, [{ title: "Back end saw, WSForward On", headers: seen }]);
  } catch (error) {
    $("seen-note").textContent = `The back end's own port ${port} cannot be reached from this browser, so there is nothing to compare with (${error.message}).`;
  }
}

for (const button of document.querySelectorAll("#which button")) {
  button.onclick = () => {
    for (const other of document.querySelectorAll("#which button")) other.setAttribute("aria-pressed", other === button);
    (button.dataset.request === "hand" ? showHandWritten : showBrowser)();
  };
}

// ---- Plots -----------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= value);
}

// Lines over a common axis; each is {name, className, values}, the newest value last.
function plot(into, capacity, unit, lines) {
  const { width, height } = into.getBoundingClientRect();
  const left = 52, right = 8, top = 18, bottom = 8;
  const highest = niceTop(Math.max(...lines.flatMap((line) => line.values), 1e-3) * 1.05);
  const x = (index, length) => left + (width - left - right) * (capacity - length + index) / (capacity - 1);
  const y = (value) => top + (height - top - bottom) * (1 - value / highest);
  const parts = [0, 0.5, 1].flatMap((share) => [
    svg("line", { class: "grid", x1: left, x2: width - right, y1: y(share * highest), y2: y(share * highest) }),
    svg("text", { x: left - 6, y: y(share * highest) + 4, "text-anchor": "end" }, `${+(share * highest).toPrecision(3)}${unit}`),
  ]);
  let at = left;
  for (const { name, className, values } of lines) {
    const points = values.map((value, index) => `${x(index, values.length).toFixed(1)} ${y(value).toFixed(1)}`);
    parts.push(svg("path", { class: className, d: points.length ? `M${points.join("L")}` : "" }));
    if (name) parts.push(svg("text", { class: className, x: at, y: 11 }, name));
    at += 8 * (name?.length ?? 0);
  }
  into.replaceChildren(...parts);
}

// ---- Live echo -------------------------------------------------------------

const ROUND_TRIPS = 150;
const trips = [];
let sent = 0, received = 0, closed = null;

function startEcho() {
  const socket = ws("echo");
  let timer;
  socket.onopen = () => {
    closed = null;
    timer = setInterval(() => { sent += 1; socket.send(`t${performance.now()}`); }, 100);
  };
  socket.onmessage = (event) => {
    if (event.data[0] === "t") {
      received += 1;
      trips.push(performance.now() - Number(event.data.slice(1)));
      if (trips.length > ROUND_TRIPS) trips.shift();
    } else {
      $("echo").textContent = `The back end says: ${event.data.slice(1)}`;
    }
  };
  socket.onclose = (event) => {
    clearInterval(timer);
    closed = event.code;
    setTimeout(startEcho, 1000);
  };
  $("say").onsubmit = (event) => {
    event.preventDefault();
    if (socket.readyState === WebSocket.OPEN && $("words").value) socket.send(`m${$("words").value}`);
    $("words").value = "";
  };
}

function showEcho() {
  plot($("rtt"), ROUND_TRIPS, " ms", [{ className: "first", values: trips }]);
  const sorted = [...trips].sort((a, b) => a - b);
  const part = (share) => (sorted.length ? `${sorted[Math.floor(share * (sorted.length - 1))].toFixed(2)} ms` : "–");
  numbers($("rtt-numbers"), [
    ["Tunnel", closed === null ? "open" : `closed (${closed})`, closed !== null],
    ["Median", part(0.5)], ["99 of 100", part(0.99)],
    ["Echoes", `${received} of ${sent}`],
  ]);
}

// ---- Tunnels and workers ---------------------------------------------------

const SECONDS = 90;
const tunnels = [], workers = [];
// Apache that has run out of workers does not answer: that shows rather than hangs the page.
const soon = () => ({ signal: AbortSignal.timeout(3000) });

async function showLoad() {
  try {
    const [status, held] = await Promise.all([
      fetch("/server-status?auto", soon()).then((answer) => answer.text()),
      fetch("/back/tunnels", soon()).then((answer) => answer.json()),
    ]);
    const lines = status.split("\n").filter((line) => line.includes(": ")).map((line) => line.split(/: (.*)/).slice(0, 2));
    const value = Object.fromEntries(lines);
    const busy = Number(value.BusyWorkers), idle = Number(value.IdleWorkers);
    tunnels.push(held.open);
    workers.push(busy);
    if (tunnels.length > SECONDS) { tunnels.shift(); workers.shift(); }
    numbers($("load-numbers"), [
      ["Open tunnels", held.open], ["Busy workers", `${busy} of ${busy + idle}`],
      ["Idle workers", idle, idle === 0],
    ]);
    // Reasons, which are many, only where there was one.
    const ours = lines.filter(([name, count]) => /^wsforward/i.test(name) && !(name.includes("-") && count === "0"));
    const known = ["ServerVersion", "ServerMPM", "ServerUptime", "Processes", "Stopping", "ConnsTotal", "ConnsAsyncKeepAlive", "Total Accesses", "ReqPerSec"];
    numbers($("status"), [...ours, ...known.filter((name) => name in value).map((name) => [name, value[name]])]);
  } catch (error) {
    numbers($("load-numbers"), [["Apache", `does not answer: ${error.message}`, true]]);
  }
  plot($("load"), SECONDS, "", [
    { name: "open tunnels", className: "first", values: tunnels },
    { name: "busy workers", className: "second", values: workers },
  ]);
}

async function order(hold) {
  $("open").disabled = $("close").disabled = true;
  $("order").textContent = hold ? "opening …" : "closing …";
  try {
    const answer = await (await fetch("/back/tunnels", { method: "POST", body: JSON.stringify({ hold }) })).json();
    $("order").textContent = answer.error ?? (answer.held ? "A browser allows itself fewer: the demo's own client holds these." : "");
  } catch (error) {
    $("order").textContent = error.message;
  }
  $("open").disabled = $("close").disabled = false;
}

$("open").onclick = () => order(500);
$("close").onclick = () => order(0);

async function every(milliseconds, work) {
  for (;;) {
    await work();
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

showHandWritten();
startEcho();
every(250, showEcho);
every(1000, showLoad);
