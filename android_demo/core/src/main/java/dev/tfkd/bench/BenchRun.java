package dev.tfkd.bench;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One run, from its specification to result.json: checks hashes, measures latency, then runs every sample. */
public final class BenchRun {
    /** Highest thermal status of a valid run: above it Android throttles the device. */
    public static final int LIGHT = 1;

    private final InferenceEngine.Factory engines;
    private final LatencyRunner.Clock clock;
    private final LatencyRunner.ThermalProbe probe;
    private final LatencyRunner.Listener listener;
    private final Map<String, Object> device;

    /** @param device description of the device for the result */
    public BenchRun(InferenceEngine.Factory engines, LatencyRunner.Clock clock, LatencyRunner.ThermalProbe probe,
            LatencyRunner.Listener listener, Map<String, Object> device) {
        this.engines = engines;
        this.clock = clock;
        this.probe = probe;
        this.listener = listener;
        this.device = device;
    }

    /** Executes the run in its folder. result.json is written last. */
    public Map<String, Object> run(RunFolder folder) throws BenchException, IOException {
        RunSpec spec = folder.spec();
        listener.at("checking files", 0);
        File model = folder.verified(spec.model);
        List<File> data = new ArrayList<File>();
        for (RunSpec.Asset asset : spec.inputs) {
            data.add(folder.verified(asset));
        }
        Map<String, Object> result = new LinkedHashMap<String, Object>();
        InferenceEngine engine = engines.load(model, spec.threads, spec.accelerator);
        try {
            measure(spec, folder, engine, data, result);
        } finally {
            engine.close();
        }
        folder.write("result.json", Json.write(result));
        return result;
    }

    private void measure(RunSpec spec, RunFolder folder, final InferenceEngine engine, List<File> data,
            Map<String, Object> result) throws BenchException, IOException {
        final ByteBuffer[] inputs = buffers(engine.inputs());
        final ByteBuffer[] outputs = buffers(engine.outputs());
        long samples = first(engine, data, inputs);
        LatencyRunner.Inference inference = new LatencyRunner.Inference() {
            @Override
            public void run() {
                engine.run(inputs, outputs);
            }

            @Override
            public long lastNativeNanos() {
                return engine.lastNativeNanos();
            }
        };
        double seconds = Math.max(spec.minSeconds, spec.sustainedSeconds);
        LatencyRunner.Result timed = new LatencyRunner(clock, probe, listener)
                .run(inference, spec.minRuns, seconds, Math.max(spec.maxSeconds, seconds));
        result.put("format", 1L);
        result.put("id", spec.id);
        result.put("nonce", spec.nonce);
        result.put("model_sha256", spec.model.sha256);
        result.put("threads", (long) spec.threads);
        result.put("accelerator", spec.accelerator);
        result.put("device", device);
        result.put("engine", engine.description());
        result.put("warm_up_runs", (long) timed.warmUpRuns);
        result.put("warm_up_stable", timed.warmUpStable);
        result.put("runs", timed.runs);
        result.put("kept_every", timed.keptEvery);
        result.put("latencies_ns", timed.nanos);
        result.put("native_ns", timed.nativeNanos);
        result.put("statistics", Statistics.of(timed.nanos));
        result.put("per_minute", Statistics.perMinute(timed.nanos, timed.began));
        boolean cancelled = timed.cancelled;
        List<Object> written = new ArrayList<Object>();
        if (spec.accuracy && !cancelled) {
            cancelled = !outputs(folder, engine, data, samples, inputs, outputs, written);
        }
        result.put("samples", spec.accuracy ? samples : 0L);
        result.put("outputs", written);
        timed.thermal.add(new long[] {timed.thermal.get(timed.thermal.size() - 1)[0] + 1, probe.status()});
        result.put("thermal", new ArrayList<Object>(timed.thermal));
        List<Object> reasons = reasons(spec, timed, cancelled);
        result.put("valid", reasons.isEmpty());
        result.put("reasons", reasons);
    }

    private static List<Object> reasons(RunSpec spec, LatencyRunner.Result timed, boolean cancelled) {
        List<Object> reasons = new ArrayList<Object>();
        if (cancelled) {
            reasons.add("cancelled");
        }
        if (timed.runs < spec.minRuns) {
            reasons.add(timed.runs + " of " + spec.minRuns + " timed runs");
        }
        long hottest = -1;
        for (long[] one : timed.thermal) {
            hottest = Math.max(hottest, one[1]);
        }
        if (hottest > LIGHT) {
            reasons.add("thermal status " + hottest + ": the device slowed itself down; let it cool");
        }
        return reasons;
    }

    /** Reads the first sample of each data file into the input buffers. Returns the number of samples. */
    private static long first(InferenceEngine engine, List<File> data, ByteBuffer[] inputs)
            throws BenchException, IOException {
        if (data.size() != inputs.length) {
            throw new BenchException("run.inputs", inputs.length + " files, one per input of the model", data.size());
        }
        long samples = -1;
        for (int i = 0; i < inputs.length; i++) {
            TensorInfo tensor = engine.inputs().get(i);
            NpyReader reader = new NpyReader(data.get(i));
            try {
                int[] shape = tensor.shape();
                boolean fits = reader.type == tensor.type && reader.shape().length == shape.length - 1 && shape[0] == 1;
                for (int axis = 1; fits && axis < shape.length; axis++) {
                    fits = shape[axis] == reader.shape()[axis - 1];
                }
                if (!fits || (samples >= 0 && samples != reader.count)) {
                    throw new BenchException(data.get(i).getName(), "samples of input " + tensor.name + ", "
                            + tensor.type + " " + java.util.Arrays.toString(shape), reader.type + " "
                            + java.util.Arrays.toString(reader.shape()) + ", " + reader.count + " samples");
                }
                samples = reader.count;
                reader.next(inputs[i]);
            } finally {
                reader.close();
            }
        }
        return samples;
    }

    /** Runs every sample and writes one file per output. Returns false if it was cancelled. */
    private boolean outputs(RunFolder folder, InferenceEngine engine, List<File> data, long samples,
            ByteBuffer[] inputs, ByteBuffer[] outputs, List<Object> written) throws BenchException, IOException {
        List<NpyReader> readers = new ArrayList<NpyReader>();
        List<NpyWriter> writers = new ArrayList<NpyWriter>();
        try {
            for (File file : data) {
                readers.add(new NpyReader(file));
            }
            for (int i = 0; i < outputs.length; i++) {
                writers.add(new NpyWriter(folder.output("output_" + i + ".npy"), engine.outputs().get(i), samples));
            }
            long next = clock.nanos();
            for (long sample = 0; sample < samples; sample++) {
                for (int i = 0; i < inputs.length; i++) {
                    readers.get(i).next(inputs[i]);
                }
                engine.reset(); // no state passes from one sample to the next
                engine.run(inputs, outputs);
                for (int i = 0; i < outputs.length; i++) {
                    writers.get(i).add(outputs[i]);
                }
                if (clock.nanos() >= next) {
                    next = clock.nanos() + 1000000000L;
                    listener.at("accuracy", (double) sample / samples);
                    if (listener.cancelled()) {
                        return false;
                    }
                }
            }
        } finally {
            for (NpyReader reader : readers) {
                reader.close();
            }
            for (NpyWriter writer : writers) {
                writer.close();
            }
        }
        for (int i = 0; i < outputs.length; i++) {
            File file = folder.output("output_" + i + ".npy");
            Map<String, Object> one = new LinkedHashMap<String, Object>();
            one.put("file", file.getName());
            one.put("sha256", RunFolder.sha256(file));
            one.put("bytes", file.length());
            written.add(one);
        }
        return true;
    }

    private static ByteBuffer[] buffers(List<TensorInfo> tensors) {
        ByteBuffer[] found = new ByteBuffer[tensors.size()];
        for (int i = 0; i < found.length; i++) {
            found[i] = ByteBuffer.allocateDirect(tensors.get(i).bytes()).order(ByteOrder.nativeOrder());
        }
        return found;
    }
}
