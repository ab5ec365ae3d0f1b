// Computes the answers of a site in a worker, so that the page stays responsive.
//
// Receives {settings}, loads the model and measures its latency; then {picture} or {sound}, each answered by {answer} or
// {error}. All messages but {phase, percent} and {latency} are answers.
"use strict";

importScripts("engine.js", "preprocess.js");

let settings = null, litert = null, model = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.settings) self.postMessage({ latency: await start(data.settings) });
    else self.postMessage({ answer: await answer(data) });
  } catch (error) {
    self.postMessage({ error: described(error) });
  }
};

async function start(received) {
  settings = received;
  report("Loading LiteRT.js", 10);
  litert = await load(settings, "./");
  report("Loading the model", 40);
  model = await compile(litert, await fetched(settings.model), settings);
  const [input] = settings.inputs;
  const tensor = tensorOf(new ARRAYS[input.dtype](input.shape.reduce((a, b) => a * b, 1)));
  const found = await timed(() => inference(tensor));
  tensor.delete();
  const sorted = found.latencies_ms.sort((a, b) => a - b);
  return { median: median(sorted), p90: sorted[Math.min(sorted.length - 1, Math.floor(0.9 * sorted.length))] };
}

function tensorOf(values) {
  return new litert.Tensor(values, settings.inputs[0].shape);
}

function inference(tensor) {
  return infer(model, settings, [tensor]);
}

async function answer({ picture, sound }) {
  const began = performance.now();
  const seen = picture ? fitted(picture, settings.image) : null;
  const values = picture ? scaled(seen, settings.image) : features(sound, settings.sound);
  const input = encoded(values, settings.inputs[0]);
  const prepared = performance.now();
  const tensor = tensorOf(input);
  const outputs = await inference(tensor);
  const raw = (await outputs[0].data()).slice();
  const ended = performance.now();
  remove([tensor, ...outputs]);
  return {
    outputs: decoded(raw, settings.outputs[0]), seen, input: values,
    prepare_ms: prepared - began, inference_ms: ended - prepared,
  };
}

// Pixels 0..255 as the range of values that the model takes.
function scaled(pixels, { low, high }) {
  if (low === 0 && high === 255) return pixels;
  const scale = (high - low) / 255;
  return Float32Array.from(pixels, (value) => Math.fround(value * scale + low));
}
