// Runs a model by LiteRT.js in a worker, so that the page stays responsive: first all latencies, then all outputs.
//
// Receives a job (the file job.json) and sends messages of three kinds: {phase, percent}, {result, outputs} and {error}.
// After a result it takes {seconds}, loads the device for so long, and sends a {point} for each part of it.
"use strict";

importScripts("engine.js");

const PARTS = 120;
let repeat = null;  // one inference and the number of them that are timed together, after a result

self.onmessage = async ({ data }) => {
  try {
    if (data.seconds) return await sustain(data.seconds);
    const { result, outputs } = await measure(data.job, data.folder);
    self.postMessage({ result, outputs }, outputs.map((array) => array.buffer));
  } catch (error) {
    self.postMessage({ error: described(error), printed: told(data.job), is_model: Boolean(error?.isModel) });
  }
};

// Checksums -----------------------------------------------------------------------------------------------------------

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

// CRC-32 as in zlib: pages without https have no crypto.subtle.
function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// The measurement -----------------------------------------------------------------------------------------------------

async function measure(job, folder) {
  report("Loading LiteRT.js", 0);
  const wall = Date.now(), began = performance.now();
  const litert = await load(job, folder);
  const loaded = performance.now();
  report("Loading the model", 0);
  const content = await fetched(`${folder}model.tflite`);
  const model_crc32 = crc32(content);
  report("Compiling the model", 0);
  const start = performance.now();
  let model = await compile(litert, content, job);
  const compiled = performance.now();
  const samples = new Samples(job, folder);
  const first = await samples.get(0);
  const run = async () => {  // one inference; a GPU has finished only when its outputs can be read
    const outputs = await infer(model, job, tensors);
    if (job.accelerator !== "wasm") await outputs[0].data();
    return outputs;
  };
  let tensors = first.map((array, i) => new litert.Tensor(array, job.inputs[i].shape));
  const before = performance.now();
  remove(await run());
  const result = {
    nonce: job.nonce, model_bytes: content.length, model_crc32, samples: job.samples,
    load_ms: loaded - began, compile_ms: compiled - start, first_run_ms: performance.now() - before,
    build: litert.build, jspi: litert.jspi, used_accelerator: model.options.accelerator,
    fully_accelerated: model.isFullyAccelerated, threads: litert.threads, timed: null,
  };
  if (job.latency) result.timed = await timed(run);
  remove(tensors);
  const outputs = [];
  result.outputs = [];
  for (let i = 0; i < job.samples; i++) {
    if (job.restart) {  // only a new model has the initial state
      model.delete();
      model = await compile(litert, content, job);
    }
    tensors = (await samples.get(i)).map((array, k) => new litert.Tensor(array, job.inputs[k].shape));
    const received = await run();
    for (const [k, tensor] of received.entries()) keep(tensor, await tensor.data(), outputs, result.outputs, k, i, job);
    remove([...tensors, ...received]);
    if (i % Math.ceil(job.samples / 50) === 0) report("Computing the answers", Math.round((100 * i) / job.samples));
  }
  result.outputs.forEach((one, k) => { one.crc32 = crc32(new Uint8Array(outputs[k].buffer)); });
  result.inputs_crc32 = samples.crcs;
  result.clock_drift_ms = Date.now() - wall - (performance.now() - began);  // the clock stops where a device sleeps
  result.printed = told(job);
  tensors = first.map((array, i) => new litert.Tensor(array, job.inputs[i].shape));
  repeat = { run, batch: result.timed?.batch ?? 1 };
  return { result, outputs };
}

function keep(tensor, data, outputs, records, k, i, job) {
  const shape = [...tensor.type.layout.dimensions];
  if (i === 0) {
    outputs[k] = new ARRAYS[tensor.type.dtype](data.length * job.samples);
    records[k] = { dtype: tensor.type.dtype, shape };
  }
  if (String(shape) !== String(records[k].shape)) throw new Error(`Output ${k} has another shape for sample ${i}`);
  outputs[k].set(data, i * data.length);
}

// The samples, fetched in parts so that they never lie in memory together.
class Samples {
  constructor(job, folder) {
    this.job = job;
    this.folder = folder;
    this.part = -1;
    this.crcs = job.inputs.map(() => 0);
  }

  // One typed array for each input. Parts are asked for in order; the first one twice, at most.
  async get(index) {
    const part = Math.floor(index / this.job.part_samples);
    if (part !== this.part) {
      this.arrays = [];
      for (const [k, input] of this.job.inputs.entries()) {
        const bytes = await fetched(`${this.folder}input/${k}/${part}`);
        this.crcs[k] = crc32(bytes, this.crcs[k]);
        this.arrays.push(new ARRAYS[input.dtype](bytes.buffer));
      }
      this.part = part;
    }
    const at = index - part * this.job.part_samples;
    return this.arrays.map((array, k) => {
      const size = this.job.inputs[k].shape.reduce((a, b) => a * b, 1);
      return array.subarray(at * size, (at + 1) * size);
    });
  }
}

// Latency -------------------------------------------------------------------------------------------------------------

// The latency of each part of a long load. Parts that pass during one long inference have no point.
async function sustain(seconds) {
  const start = performance.now(), length = (1000 * seconds) / PARTS;
  for (let end = 1, passed = 0; passed < PARTS; end = Math.min(PARTS, Math.max(end + 1, Math.ceil(passed + 0.5)))) {
    const times = [];
    while (passed < end || !times.length) {
      times.push((await once(repeat.run, repeat.batch)).ms / repeat.batch);
      passed = (performance.now() - start) / length;
    }
    const at = (passed * length) / 1000;
    self.postMessage({ point: { seconds: passed < PARTS ? at : Math.max(at, seconds), ms: middleMean(times) } });
  }
}
