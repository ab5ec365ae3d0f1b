package dev.tfkd.bench;

import java.io.Closeable;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.tensorflow.lite.Delegate;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;
import org.tensorflow.lite.TensorFlowLite;

/** LiteRT's Java interpreter with XNNPACK on the CPU, the GPU delegate if the app contains its library, or NNAPI. */
public final class LiteRTEngine implements InferenceEngine {
    private static final String GPU = "org.tensorflow.lite.gpu.GpuDelegate";

    /** Creates this engine. */
    public static final Factory FACTORY = new Factory() {
        @Override
        public InferenceEngine load(File model, int threads, String accelerator) throws BenchException {
            return new LiteRTEngine(model, threads, accelerator);
        }
    };

    private final File model;
    private final int threads;
    private final String accelerator;
    private final boolean restarts;
    private Interpreter interpreter;
    private Delegate delegate;
    private final List<TensorInfo> inputs = new ArrayList<TensorInfo>();
    private final List<TensorInfo> outputs = new ArrayList<TensorInfo>();
    private final Map<String, Object> description = new LinkedHashMap<String, Object>();
    private final Map<Integer, Object> written = new LinkedHashMap<Integer, Object>();

    private LiteRTEngine(File model, int threads, String accelerator) throws BenchException {
        this.model = model;
        this.threads = threads;
        this.accelerator = accelerator;
        start();
        try {
            restarts = OperatorCodes.haveStateWithoutReset(model);
        } catch (IOException error) {
            close();
            throw new BenchException(model.getName(), "a readable file", error.getMessage());
        }
        for (int i = 0; i < interpreter.getInputTensorCount(); i++) {
            inputs.add(info(interpreter.getInputTensor(i)));
        }
        for (int i = 0; i < interpreter.getOutputTensorCount(); i++) {
            outputs.add(info(interpreter.getOutputTensor(i)));
        }
        description.put("engine", "LiteRT");
        description.put("version", TensorFlowLite.runtimeVersion());
        description.put("accelerator", accelerator);
    }

    private void start() throws BenchException {
        Interpreter.Options options = new Interpreter.Options().setNumThreads(threads);
        delegate = accelerator.equals("gpu") ? gpu() : null;
        if (delegate != null) {
            options.addDelegate(delegate);
        }
        if (accelerator.equals("nnapi")) {
            options.setUseNNAPI(true);
        }
        try {
            interpreter = new Interpreter(model, options);
            interpreter.allocateTensors();
        } catch (RuntimeException error) { // LiteRT throws it for a model or delegate that it does not support
            release();
            throw new BenchException(model.getName(), "a model that LiteRT supports on " + accelerator, error.getMessage());
        } catch (LinkageError error) { // for example a library for 4 KB pages on a device with 16 KB pages
            release();
            throw new BenchException("LiteRT", "loadable on this device", error.getMessage());
        }
    }

    /** Whether the app contains the GPU delegate's classes. */
    public static boolean hasGpu() {
        try {
            Class.forName(GPU);
            return true;
        } catch (ClassNotFoundException error) {
            return false;
        }
    }

    private static Delegate gpu() throws BenchException {
        try {
            return (Delegate) Class.forName(GPU).getDeclaredConstructor().newInstance();
        } catch (ReflectiveOperationException error) {
            throw new BenchException("accelerator gpu", "used in an app that contains LiteRT's GPU library", error);
        } catch (LinkageError error) {
            throw new BenchException("accelerator gpu", "used on a device where LiteRT's GPU library loads", error);
        }
    }

    private static TensorInfo info(Tensor tensor) throws BenchException {
        TensorType type;
        try {
            type = TensorType.valueOf(tensor.dataType().name());
        } catch (IllegalArgumentException error) {
            throw new BenchException("tensor " + tensor.name(), "numeric", tensor.dataType());
        }
        Tensor.QuantizationParams steps = tensor.quantizationParams();
        return new TensorInfo(tensor.name(), type, tensor.shape(), steps.getScale(), steps.getZeroPoint());
    }

    @Override
    public List<TensorInfo> inputs() {
        return Collections.unmodifiableList(inputs);
    }

    @Override
    public List<TensorInfo> outputs() {
        return Collections.unmodifiableList(outputs);
    }

    @Override
    public void reset() throws BenchException {
        if (restarts) { // only a new interpreter has the initial values
            close();
            start();
        } else {
            interpreter.resetVariableTensors();
        }
    }

    @Override
    public void run(ByteBuffer[] in, ByteBuffer[] out) {
        for (ByteBuffer one : in) {
            one.rewind();
        }
        for (int i = 0; i < out.length; i++) {
            out[i].rewind();
            written.put(i, out[i]);
        }
        interpreter.runForMultipleInputsOutputs(in, written);
    }

    @Override
    public long lastNativeNanos() {
        Long found = interpreter.getLastNativeInferenceDurationNanoseconds();
        return found == null ? -1 : found;
    }

    @Override
    public Map<String, Object> description() {
        return Collections.unmodifiableMap(description);
    }

    @Override
    public void close() {
        interpreter.close();
        release();
    }

    private void release() {
        if (delegate instanceof Closeable) {
            try {
                ((Closeable) delegate).close();
            } catch (IOException error) {
                throw new IllegalStateException(error); // cannot happen: a delegate has no file to close
            }
        }
    }
}
