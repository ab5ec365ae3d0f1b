package dev.tfkd.bench;

import java.io.Closeable;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;

/** A loaded model on some engine. Not for several threads. */
public interface InferenceEngine extends Closeable {
    List<TensorInfo> inputs();

    List<TensorInfo> outputs();

    /** One inference: direct buffers of native byte order, one for each tensor, each with room for one sample. */
    void run(ByteBuffer[] inputs, ByteBuffer[] outputs);

    /** Nanoseconds of the last inference inside the engine, or -1 where it does not say. */
    long lastNativeNanos();

    /** What ran: engine, version, accelerator as it came about. */
    Map<String, Object> description();

    @Override
    void close();

    /** Makes an engine for a model. */
    interface Factory {
        InferenceEngine load(java.io.File model, int threads, String accelerator) throws BenchException;
    }
}
