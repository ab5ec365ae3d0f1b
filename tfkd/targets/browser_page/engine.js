// LiteRT.js in a worker: how it is loaded, how a model is compiled, and how its latency is measured.
//
// Times are milliseconds of performance.now(), whose step is measured: a batch of inferences takes at least 20 steps.
"use strict";

const STEPS = 20, WARM_UP_MS = 200, LONGEST_WARM_UP_MS = 2000, RUNS = 50, RUN_MS = 1000, LONGEST_RUN_MS = 150000;
const FEWEST_RUNS = 5, KEPT_RUNS = 10000, LONG_PAUSE_MS = 1000, THREADS_MS = 30000;
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
const printed = [];

for (const level of ["warn", "error"]) {
  const original = console[level];
  console[level] = (...parts) => {
    const text = parts.map(String).join(" ").replace(/%c|background:[^;]*;[^%]*|font-weight: bold;|color: #\w+;/g, "").trim();
    if (!text.startsWith("INFO:") && !text.includes("npu_registry")) printed.push(text);
    original.apply(console, parts);
  };
}

function described(error) {
  if (error instanceof RangeError || /out of memory|Aborted\(OOM\)|Cannot enlarge memory/i.test(String(error))) {
    return `The browser has too little memory for this model (${error}).`;
  }
  return plain(error instanceof Error ? `${error.name}: ${error.message}` : String(error));
}

// Without the places in LiteRT's sources.
function plain(text) {
  return text.replace(/(└\s*)?ERROR:\s*(\[\S+:\d+\]\s*)?/g, "").trim();
}

// What was printed and may explain a failure or a number.
function told(job) {
  return printed.filter((text) => job?.accelerator !== "wasm" || !text.includes("WebGPU device")).map(plain).slice(-10);
}

// LiteRT.js only prints some failures, for example that memory is too small, and returns outputs of no meaning.
// It also prints which ops a delegate leaves to others, which is no failure.
function refusePrintedErrors() {
  if (printed.some((text) => /^ERROR:.*failed to (prepare|invoke|allocate|run|eval)/i.test(text))) throw Object.assign(new Error("LiteRT.js could not run the model"), { isModel: true });
}

function report(phase, percent) {
  self.postMessage({ phase, percent });
}

async function fetched(url) {
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`${url} was refused (status ${reply.status})`);
  return new Uint8Array(await reply.arrayBuffer());
}

// LiteRT.js and the model ---------------------------------------------------------------------------------------------

async function load(job, folder) {
  const jspi = "Suspending" in WebAssembly && job.accelerator !== "wasm";
  const threads = job.threads > 1;
  if (threads && !self.crossOriginIsolated) {
    throw new Error("Threads need a page over https, or one from this device itself; this page has neither. Use threads=1");
  }
  if (job.accelerator === "webgpu" && !navigator.gpu) {
    throw new Error("This browser has no WebGPU here; it needs a page over https. Use accelerator=wasm");
  }
  if (job.accelerator === "webnn" && !(await navigator.ml?.createContext().catch(() => null))) {
    throw new Error("This browser has no WebNN here; it needs a page over https and a system that has it. Use accelerator=wasm");
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

// One inference.
async function infer(model, job, tensors) {
  const outputs = await model.run(named(job, tensors)).catch((error) => {
    // LiteRT.js reads `.value` of the missing type of such an output; each browser words that in its own way.
    if (!(error instanceof TypeError && /undefined/.test(error.message) && /\bvalue\b/.test(error.message))) throw error;
    const message = "LiteRT.js gives no outputs whose shape is not in the file, as those of some custom ops. Use the target host";
    throw Object.assign(new Error(message), { isModel: true });
  });
  if (printed.length) refusePrintedErrors();
  return ordered(job, outputs);
}

function remove(tensors) {
  for (const tensor of tensors) tensor.delete();
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

// The mean of the middle half: finer than a median, which is one step of a coarse clock or the next.
function middleMean(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.slice(Math.floor(sorted.length / 4), Math.ceil((3 * sorted.length) / 4));
  return middle.reduce((a, b) => a + b, 0) / middle.length;
}

async function once(run, batch) {
  const garbage = [];
  const start = performance.now();
  for (let i = 0; i < batch; i++) garbage.push(await run());
  const end = performance.now();
  garbage.forEach(remove);
  return { start, end, ms: end - start };
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
