// The page: starts the worker, shows its progress and, at the end, what the computer found in the answers.
"use strict";

const LONG_PAUSE_MS = 3000, STALLED_MS = 600000;
const UNREACHABLE = /Failed to fetch|NetworkError|Load failed|timed out/;  // Chromium, Firefox, Safari, a time limit
const $ = (id) => document.getElementById(id);
let worker = null, points = [], again = false;
let hidden = document.visibilityState !== "visible", longestPause = 0, lock = null;

document.addEventListener("visibilitychange", () => { hidden ||= document.visibilityState !== "visible"; });

function show(id, visible = true) {
  $(id).hidden = !visible;
}

function status(text, percent) {
  $("status").textContent = text;
  $("progress").value = percent;
}

// Device facts that a browser tells; most of them only to pages over https.
async function device() {
  const found = {
    user_agent: navigator.userAgent, cores: navigator.hardwareConcurrency ?? null,
    memory_gib: navigator.deviceMemory ?? null, screen: `${screen.width}x${screen.height}`,
    secure: self.isSecureContext, isolated: self.crossOriginIsolated, hints: null, gpu: null,
  };
  const hints = ["platform", "platformVersion", "model", "architecture", "fullVersionList"];
  try {
    found.hints = (await navigator.userAgentData?.getHighEntropyValues(hints)) ?? null;
  } catch { /* the browser refuses them */ }
  try {
    const info = (await navigator.gpu?.requestAdapter())?.info;
    if (info) found.gpu = [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ");
  } catch { /* no GPU */ }
  return found;
}

// A page whose timers stop was suspended: its latencies are those of a sleeping device.
function watch() {
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longestPause = Math.max(longestPause, now - last);
    last = now;
  }, 250);
  return () => clearInterval(timer);
}

function work(job) {
  return new Promise((resolve, reject) => {
    worker?.terminate();
    worker = new Worker("measure.js");
    let limit = 0;
    const ended = (settle, value) => { clearTimeout(limit); settle(value); };
    const alive = () => {  // a file that never arrives would be waited for without an end
      clearTimeout(limit);
      limit = setTimeout(() => {
        worker.terminate();
        reject(new Error(`Nothing has happened for ${STALLED_MS / 60000} minutes. Is the network lost?`));
      }, STALLED_MS);
    };
    worker.onmessage = ({ data }) => {
      if (data.error) return ended(reject, Object.assign(new Error(data.error), data));
      if (!data.phase) return ended(resolve, data);
      alive();
      status(data.phase, data.percent);
    };
    worker.onerror = (event) => ended(reject, new Error(event.message || "The worker could not be started"));
    alive();
    worker.postMessage({ job, folder: "./" });
  });
}

// The server ends a connection earlier, but a network that is cut does not tell.
function limited(options = {}) {
  return { ...options, signal: AbortSignal.timeout?.(STALLED_MS) };
}

async function send(record, outputs) {
  const header = new TextEncoder().encode(JSON.stringify(record));
  const length = new Uint8Array(new Uint32Array([header.length]).buffer);
  const reply = await fetch("result", limited({ method: "POST", body: new Blob([length, header, ...outputs]) }));
  const found = await reply.json().catch(() => null);
  return found ?? { error: `The computer refused the answer (status ${reply.status}).` };
}

async function test() {
  show("start", false);
  show("sustained", false);
  show("curve", false);
  show("running");
  hidden = document.visibilityState !== "visible";
  longestPause = 0;
  let job = null, stop = () => {};
  try {
    lock = await navigator.wakeLock?.request("screen").catch(() => null);  // without it the screen may go off
    job = await (await fetch("job.json", limited())).json();
    if (typeof WebAssembly !== "object") throw new Error("This browser has no WebAssembly. Use a newer one.");
    const facts = await device();
    stop = watch();
    const { result, outputs } = await work(job);
    stop();
    status("Sending the answers", 99);
    const record = { ...result, device: facts, hidden, page_pause_ms: longestPause > LONG_PAUSE_MS ? longestPause : 0 };
    answer(await send(record, outputs));
  } catch (error) {
    if (job) {
      const { message, printed = [], is_model = false } = error;
      const record = { nonce: job.nonce, error: message, printed, is_model, device: await device() };
      await send(record, []).catch(() => null);  // the computer may be gone
    }
    answer({ error: UNREACHABLE.test(error.message) ? "The computer cannot be reached. Does it still wait?" : error.message });
  } finally {
    stop();
    await lock?.release();
  }
}

function answer(found) {
  show("running", false);
  show("result");
  $("verdict").textContent = found.error ? "The test failed" : found.verdict;
  $("result").dataset.state = found.error ? "bad" : found.state;
  $("explanation").textContent = found.error ?? found.explanation;
  const facts = $("facts");
  facts.replaceChildren();
  for (const [name, value] of found.facts ?? []) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    facts.append(term, text);
  }
  histogram(found.histogram);
  again = Boolean(found.error) || found.again;
  show("start", again);
  show("sustained", !found.error);
  $("start").textContent = "Run the test again";
  $("verdict").focus();
}

function histogram(found) {
  show("chart", Boolean(found));
  if (!found) return;
  const top = Math.max(...found.counts), width = 300 / found.counts.length;
  const bars = found.counts.map((count, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = count ? Math.max(1, (90 * count) / top) : 0;
    for (const [name, value] of Object.entries({ x: i * width, y: 90 - height, width: width - 1, height })) bar.setAttribute(name, value);
    return bar;
  });
  $("bars").replaceChildren(...bars);
  $("lowest").textContent = found.lowest;
  $("highest").textContent = found.highest;
  $("bars").setAttribute("aria-label", `Histogram of latencies from ${found.lowest} to ${found.highest}`);
}

// Ten minutes of load: browsers tell no temperature, but a device that becomes hot becomes slower.
async function sustain() {
  const button = $("sustained"), seconds = Number(button.dataset.seconds);
  lock = await navigator.wakeLock?.request("screen").catch(() => null);
  points = [];
  hidden = document.visibilityState !== "visible";
  show("start", false);
  show("sustained", false);
  show("curve");
  worker.onmessage = ({ data }) => {
    if (data.error) $("slowing").textContent = data.error;
    if (data.point) draw(data.point, seconds);
    if (data.error || data.point?.seconds >= seconds) {
      lock?.release();
      show("start", again);
      show("sustained");
    }
  };
  worker.postMessage({ seconds });
}

function draw(point, seconds) {
  points.push(point);
  const top = 1.1 * Math.max(...points.map(({ ms }) => ms));
  const end = Math.max(seconds, point.seconds);
  const place = ({ seconds: at, ms }) => `${((300 * at) / end).toFixed(1)},${(90 - (90 * ms) / top).toFixed(1)}`;
  $("line").setAttribute("points", points.map(place).join(" "));
  $("end").textContent = `${Math.floor(end)} s`;
  const first = points[0].ms, slowest = Math.max(...points.map(({ ms }) => ms));
  const slower = (ms) => Math.round(100 * (ms / first - 1));
  const text = `After ${Math.floor(point.seconds)} of ${seconds} s: ${point.ms.toPrecision(3)} ms, ` +
    (slower(point.ms) > 0 ? `${slower(point.ms)} % slower than at the start` : "not slower than at the start") +
    (slower(slowest) > Math.max(0, slower(point.ms)) ? `; at most ${slower(slowest)} % slower.` : ".");
  $("slowing").textContent = hidden ? `${text} The page was in the background: this does not count.` : text;
}

window.addEventListener("error", (event) => answer({ error: event.message }));
$("start").addEventListener("click", test);
$("sustained").addEventListener("click", sustain);
document.body.dataset.ready = "yes";
show("start");
if (document.body.dataset.auto === "yes") test();
