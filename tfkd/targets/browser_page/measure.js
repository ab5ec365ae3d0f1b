// Runs a model by LiteRT.js in a worker, so that the page stays responsive: first all latencies, then all outputs.
//
// Receives a job (the file job.json) and sends messages of three kinds: {phase, percent}, {result, outputs} and {error}.
// After a result it takes {seconds}, loads the device for so long, and sends a {point} for each part of it.
// Times are milliseconds of performance.now(), whose step is measured: a batch of inferences takes at least 20 steps.
"use strict";

const STEPS = 20, WARM_UP_MS = 200, LONGEST_WARM_UP_MS = 2000, RUNS = 50, RUN_MS = 1000, LONGEST_RUN_MS = 150000;
const FEWEST_RUNS = 5, KEPT_RUNS = 10000, LONG_PAUSE_MS = 1000, THREADS_MS = 30000;
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
const PARTS = 120;
const printed = [];
let repeat = null;  // one inference and the number of them that are timed together, after a result

for (const level of ["warn", "error"]) {
  const original = console[level];
  console[level] = (...parts) => {
    const text = parts.map(String).join(" ").replace(/%c|background:[^;]*;[^%]*|font-weight: bold;|color: #\w+;/g, "").trim();
    if (!text.startsWith("INFO:") && !text.includes("npu_registry")) printed.push(text);
    original.apply(console, parts);
  };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.seconds) return await sustain(data.seconds);
    const { result, outputs } = await measure(data.job, data.folder);
    self.postMessage({ result, outputs }, outputs.map((array) => array.buffer));
  } catch (error) {
    self.postMessage({ error: described(error), printed: printed.slice(-10), is_model: Boolean(error?.isModel) });
  }
};

function described(error) {
  if (error instanceof RangeError || /out of memory|Aborted\(OOM\)|Cannot enlarge memory/i.test(String(error))) {
    return `The browser has too little memory for this model (${error}).`;
  }
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

// LiteRT.js only prints some failures, for example that memory is too small, and returns outputs of no meaning.
// It also prints which ops a delegate leaves to others, which is no failure.
function refusePrintedErrors() {
  if (printed.some((text) => /^ERROR:.*failed to (prepare|invoke|allocate|run|eval)/i.test(text))) throw Object.assign(new Error("LiteRT.js could not run the model"), { isModel: true });
}

function report(phase, percent) {
  self.postMessage({ phase, percent });
}

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

async function fetched(url) {
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`${url} was refused by the computer (status ${reply.status})`);
  return new Uint8Array(await reply.arrayBuffer());
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
    const outputs = ordered(job, await model.run(named(job, tensors)));
    if (printed.length) refusePrintedErrors();
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
  result.printed = printed.filter((text) => job.accelerator !== "wasm" || !text.includes("WebGPU device")).slice(-10);
  tensors = first.map((array, i) => new litert.Tensor(array, job.inputs[i].shape));
  repeat = { run, batch: result.timed?.batch ?? 1 };
  return { result, outputs };
}

async function load(job, folder) {
  const jspi = "Suspending" in WebAssembly && job.accelerator !== "wasm";
  const threads = job.threads > 1;
  if (threads && !self.crossOriginIsolated) {
    throw new Error("Threads need a page over https, or one from this device itself; this page has neither. Use threads=1");
  }
  if (job.accelerator === "webgpu" && !navigator.gpu) {
    throw new Error("This browser has no WebGPU here; it needs a page over https. Use accelerator=wasm");
  }
  if (job.accelerator === "webnn" && !navigator.ml) {
    throw new Error("This browser has no WebNN here; it needs a page over https. Use accelerator=wasm");
  }
  let build = "";
  // In a worker, the Wasm code does not know from which address it came.
  const wasm = new URL(`${folder}litert/`, self.location.href).href;
  self.Module = {
    locateFile: (name) => { build = name.replace("_internal.wasm", ""); return wasm + name; },
    mainScriptUrlOrBlob: `${wasm}litert_wasm_threaded_internal.js`,
  };
  const litert = await import(`${wasm}index.js`);
  const loading = litert.loadLiteRt(wasm, { threads, jspi: !threads && jspi });
  await (threads ? Promise.race([loading, refusedThreads()]) : loading);
  const device = litert.getWebGpuDevice();
  if (job.accelerator === "webgpu" && !device) throw new Error("This device has no GPU that WebGPU can use. Use accelerator=wasm");
  return { ...litert, Tensor: litert.Tensor, build, jspi, threads: job.threads };
}

// Threads whose script is refused never start, and LiteRT.js waits for them.
function refusedThreads() {
  return new Promise((_, reject) => {
    const message = "The browser started no threads: it must trust the certificate of this page. Use threads=1";
    setTimeout(() => reject(new Error(message)), THREADS_MS);
  });
}

async function compile(litert, content, job) {
  const options = { accelerator: job.accelerator, cpuOptions: { numThreads: job.threads } };
  const model = await litert.loadAndCompile(content, options).catch((error) => {
    throw Object.assign(error instanceof Error ? error : new Error(String(error)), { isModel: true });
  });
  if (model.getInputDetails().length !== job.inputs.length) throw new Error("LiteRT.js sees another number of inputs");
  return model;
}

function named(job, tensors) {
  return job.input_names ? Object.fromEntries(tensors.map((tensor, i) => [job.input_names[i], tensor])) : tensors;
}

function ordered(job, outputs) {
  return job.output_names ? job.output_names.map((name) => outputs[name]) : outputs;
}

function remove(tensors) {
  for (const tensor of tensors) tensor.delete();
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

// The median step of the clock in ms: browsers make it coarse on purpose, by 0.005 to 1 ms.
function clockStep() {
  const steps = [], end = performance.now() + 300;
  for (let last = performance.now(); steps.length < 100 && last < end;) {
    const now = performance.now();
    if (now > last) steps.push(now - last);
    last = now;
  }
  return median(steps);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

async function once(run, batch) {
  const garbage = [];
  const start = performance.now();
  for (let i = 0; i < batch; i++) garbage.push(await run());
  const end = performance.now();
  garbage.forEach(remove);
  return { start, end, ms: end - start };
}

// The median latency of each part of a long load. Parts that pass during one long inference have no point.
async function sustain(seconds) {
  const start = performance.now(), length = (1000 * seconds) / PARTS;
  for (let end = 1, passed = 0; passed < PARTS; end = Math.min(PARTS, Math.max(end + 1, Math.ceil(passed + 0.5)))) {
    const times = [];
    while (passed < end || !times.length) {
      times.push((await once(repeat.run, repeat.batch)).ms / repeat.batch);
      passed = (performance.now() - start) / length;
    }
    const at = (passed * length) / 1000;
    self.postMessage({ point: { seconds: passed < PARTS ? at : Math.max(at, seconds), ms: median(times) } });
  }
}

async function timed(run) {
  const clock_step_ms = clockStep();
  let batch = 1;
  const warmUp = [], began = performance.now();
  let stable = false;
  while (!stable && performance.now() - began < LONGEST_WARM_UP_MS) {
    const { ms } = await once(run, batch);
    if (ms < STEPS * clock_step_ms) {
      batch = ms > 0 ? Math.min(2 * batch, Math.ceil((batch * STEPS * clock_step_ms) / ms)) : 2 * batch;
      warmUp.length = 0;
      continue;
    }
    warmUp.push(ms);
    if (warmUp.length >= 20 && performance.now() - began >= WARM_UP_MS) {
      const now = median(warmUp.slice(-10)), earlier = median(warmUp.slice(-20, -10));
      stable = Math.abs(now - earlier) < 0.05 * earlier;
    }
  }
  // Half as many again, since single batches are faster than those of the warm-up.
  batch = batch > 1 ? Math.ceil(1.5 * batch) : 1;
  const usual = median(warmUp.length ? warmUp.slice(-20) : [(await once(run, batch)).ms]);
  const every = Math.max(1, Math.floor(RUN_MS / usual / KEPT_RUNS));
  const kept = [], start = performance.now();
  let runs = 0, previous = start, longest = 0, shortest = Infinity, shown = 0;
  for (;;) {
    const spent = performance.now() - start;
    if ((runs >= RUNS && spent >= RUN_MS) || (runs >= FEWEST_RUNS && spent >= LONGEST_RUN_MS)) break;
    const one = await once(run, batch);
    longest = Math.max(longest, one.ms, one.start - previous);
    shortest = Math.min(shortest, one.ms);
    previous = one.end;
    if (++runs % every === 0) kept.push(one.ms / batch);
    if (one.end - shown > 100) {
      report("Measuring the latency", Math.min(99, Math.round(100 * Math.min(runs / RUNS, (one.end - start) / RUN_MS))));
      shown = one.end;
    }
  }
  return {
    latencies_ms: kept, clock_step_ms, batch, runs, kept_every: every, warm_up_runs: warmUp.length,
    warm_up_stable: stable, longest_pause_ms: longest > LONG_PAUSE_MS + 10 * median(kept) * batch ? longest : 0,
    shortest_in_steps: shortest / clock_step_ms,
  };
}
