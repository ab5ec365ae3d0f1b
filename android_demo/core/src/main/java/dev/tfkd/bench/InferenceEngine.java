package dev.tfkd.bench;

import java.io.Closeable;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;

/** A model loaded by an engine. Not thread-safe. */
public interface InferenceEngine extends Closeable {
    List<TensorInfo> inputs();

    List<TensorInfo> outputs();

    /** Sets the state of the model, such as that of an LSTM, to its initial value. */
    void reset() throws BenchException;

    /** One inference from the present state. The buffers are direct, in native byte order, one per tensor, each of the size of one sample. */
    void run(ByteBuffer[] inputs, ByteBuffer[] outputs);

    /** Duration of the last inference as the engine measured it, in nanoseconds, or -1 if unknown. */
    long lastNativeNanos();

    /** Engine, version and the accelerator in use. */
    Map<String, Object> description();

    @Override
    void close();

    /** Creates an engine for a model. */
    interface Factory {
        InferenceEngine load(java.io.File model, int threads, String accelerator) throws BenchException;
    }
}
