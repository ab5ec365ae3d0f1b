// A page that shows what a model answers to pictures or sounds of this device.
//
// For other scripts, each answer is also an event "answer" of the document; its detail has the input and the outputs.
"use strict";

const TOP = 5, WINDOW_MS = 500;
const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const worker = location.protocol === "file:" ? null : new Worker("site_worker.js");
let waiting = null, last = Promise.resolve(), stopLive = null, facing = "environment", latency = null;

function show(id, visible = true) {
  if ($(id)) $(id).hidden = !visible;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isError);
}

// Resolves to the answer to a question. One question at a time, so that none gets the answer to another.
function ask(question) {
  last = last.catch(() => {}).then(() => new Promise((resolve, reject) => {
    waiting = { resolve, reject };
    worker.postMessage(question);
  }));
  return last;
}

function received({ data }) {
  if (data.phase) {
    say(data.phase);
    $("progress").value = data.phase.startsWith("Measuring") ? 60 + 0.4 * data.percent : data.percent;
  } else if (data.error) waiting.reject(new Error(data.error));
  else waiting.resolve(data.latency ?? data.answer);
}

async function start() {
  if (!worker) return fail(new Error("A browser opens this folder by http only. Run: python3 -m http.server"));
  if (typeof WebAssembly !== "object") return fail(new Error("This browser has no WebAssembly. Use a newer one."));
  worker.onmessage = received;
  worker.onerror = (event) => fail(new Error(event.message || "The worker could not be started."));
  try {
    latency = await ask({ settings });
  } catch (error) {
    return fail(error);
  }
  show("progress", false);
  show("inputs");
  show("live", Boolean(navigator.mediaDevices?.getUserMedia));
  const device = settings.image ? "camera" : "microphone";
  say(navigator.mediaDevices ? "Ready" : `Ready. A browser opens the ${device} over https only; files work.`);
  facts();
}

function fail(error) {
  show("progress", false);
  const text = { NotAllowedError: "Access was denied. Allow it in the settings of the browser, or choose a file.",
    NotFoundError: `This device has no ${settings.image ? "camera" : "microphone"}. Choose a file.` }[error.name];
  say(text ?? error.message, true);
}

// Answers -------------------------------------------------------------------------------------------------------------

function activated(outputs) {
  const values = [...outputs];
  if (settings.activation === "sigmoid") return values.map((x) => 1 / (1 + Math.exp(-x)));
  if (settings.activation !== "softmax") return values;
  const top = Math.max(...values), powers = values.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

// The lines to show: [label, value, whether the value is a share].
function lines(outputs) {
  const values = activated(outputs);
  if (settings.task === "regression") return values.map((value, i) => [settings.labels[i], value, false]);
  const named = settings.task === "binary" ? [1 - values[0], values[0]] : values;
  const sorted = named.map((value, i) => [settings.labels[i], value, true]).sort((a, b) => b[1] - a[1]);
  return sorted.slice(0, TOP);
}

function line([label, value, isShare]) {
  const item = document.createElement("li");
  for (const text of [label, isShare ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4)]) {
    item.append(Object.assign(document.createElement("span"), { textContent: text }));
  }
  if (isShare) {
    const bar = Object.assign(document.createElement("meter"), { min: 0, max: 1, value });
    bar.setAttribute("aria-label", `${label}: ${(100 * value).toFixed(1)} %`);
    item.append(bar);
  }
  return item;
}

function present(answer) {
  show("result");
  if ([...answer.outputs].some((value) => !Number.isFinite(value))) throw new Error("The model's answer is not a number.");
  $("answers").replaceChildren(...lines(answer.outputs).map(line));
  if (answer.seen) draw(answer.seen);
  facts(answer);
  document.dispatchEvent(new CustomEvent("answer", { detail: answer }));
}

function draw(seen) {
  const { width, height, channels } = settings.image, canvas = $("seen");
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = seen[channels === 1 ? i : 3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function facts(answer = null) {
  const ms = (value) => `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ms`;
  const found = [["Median latency", ms(latency.median)], ["90 % below", ms(latency.p90)]];
  if (answer) found.push(["Last input prepared in", ms(answer.prepare_ms)]);
  $("facts").replaceChildren(...found.flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  ]));
}

// Files ---------------------------------------------------------------------------------------------------------------

async function answerFile() {
  const file = $("file").files[0];
  if (!file) return;
  await stop();
  say(`Reading ${file.name}`);
  try {
    const question = settings.image ? { picture: await pictureOf(file) } : { sound: await soundOf(file) };
    present(await ask(question));
    say(`${file.name}: ${$("answers").firstChild.firstChild.textContent}`);
  } catch (error) {
    const reason = error.name === "InvalidStateError" || error.name === "EncodingError" ?
      new Error(`${file.name} is no ${settings.image ? "picture" : "sound"} that this browser reads.`) : error;
    fail(reason);
  }
}

// As stored, without the conversions of colors that a page usually makes; upright.
async function pictureOf(file) {
  const how = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  return pixelsOf(await createImageBitmap(file, how));
}

function pixelsOf(source, width = source.width, height = source.height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  return { pixels: context.getImageData(0, 0, width, height).data, width, height };
}

// The mean of all channels, in the sample rate of the model.
async function soundOf(file) {
  const context = new OfflineAudioContext(1, 1, settings.sound.sample_rate);
  const decoded = await context.decodeAudioData(await file.arrayBuffer());
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  if (channels.length === 1) return channels[0].slice();
  return Float32Array.from(channels[0], (_, n) => channels.reduce((sum, one) => sum + one[n], 0) / channels.length);
}

// Camera and microphone -----------------------------------------------------------------------------------------------

async function startLive() {
  await stop();
  try {
    await (settings.image ? camera() : microphone());
    show("live", false);
    show("stop");
    $("stop").focus();
    say(settings.image ? "The camera is on" : "The microphone is on");
  } catch (error) {
    await stop();
    fail(error);
  }
}

async function stop() {
  const ending = stopLive;
  stopLive = null;
  await ending?.();
  show("source", false);
  show("turn", false);
  show("stop", false);
  show("live", Boolean(navigator.mediaDevices?.getUserMedia));
}

async function camera() {
  const video = { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } };
  const stream = await navigator.mediaDevices.getUserMedia({ video });
  const element = $("video");
  element.srcObject = stream;
  await element.play();
  show("result");
  show("source");
  show("turn");
  live(stream, async () => {
    await new Promise((resolve) => { requestAnimationFrame(resolve); });
    return { picture: pixelsOf(element, element.videoWidth, element.videoHeight) };
  });
}

async function microphone() {
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder");
  const { sample_rate, samples } = settings.sound;
  const recorded = new Float32Array(Math.ceil((samples * context.sampleRate) / sample_rate));
  let filled = 0;
  recorder.port.onmessage = ({ data }) => {
    recorded.copyWithin(0, data.length);
    recorded.set(data, recorded.length - data.length);
    filled += data.length;
  };
  context.createMediaStreamSource(stream).connect(recorder);
  live(stream, async () => {
    do await new Promise((resolve) => { setTimeout(resolve, WINDOW_MS); }); while (filled < recorded.length && stopLive);
    return { sound: await atRate(recorded.slice(), context.sampleRate) };
  }, () => context.close());
}

async function atRate(wave, rate) {
  const { sample_rate, samples } = settings.sound;
  if (rate === sample_rate) return wave;
  const context = new OfflineAudioContext(1, samples, sample_rate), source = context.createBufferSource();
  source.buffer = new AudioBuffer({ length: wave.length, sampleRate: rate, numberOfChannels: 1 });
  source.buffer.copyToChannel(wave, 0);
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

// Asks again and again until it is stopped.
function live(stream, next, close = () => {}) {
  let running = true;
  const ended = (async () => {
    while (running) {
      const question = await next();
      if (running) present(await ask(question));
    }
  })().catch(async (error) => {
    if (!running) return;
    running = false;
    setTimeout(() => stop().then(() => fail(error)));
  });
  stopLive = async () => {
    running = false;
    for (const track of stream.getTracks()) track.stop();
    await ended;
    await close();
  };
}

$("file").addEventListener("change", answerFile);
$("live").addEventListener("click", startLive);
$("stop").addEventListener("click", async () => {
  await stop();
  $("live").focus();
  say("Stopped");
});
$("turn")?.addEventListener("click", () => {
  facing = facing === "environment" ? "user" : "environment";
  startLive();
});
document.body.dataset.ready = "yes";
start();
