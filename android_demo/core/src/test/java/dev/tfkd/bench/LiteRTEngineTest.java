package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.Map;
import org.junit.Test;

/** The engine on the app's LiteRT, with models and the host's outputs in the folder -Dtfkd.folder. */
public class LiteRTEngineTest {
    private static final File MODELS = new File(System.getProperty("tfkd.folder"));

    private static ByteBuffer buffer(TensorInfo tensor) {
        return ByteBuffer.allocateDirect(tensor.bytes()).order(ByteOrder.nativeOrder());
    }

    /** Runs all samples and returns the largest difference from the host's outputs, in units of the output. */
    private static double difference(String name) throws Exception {
        InferenceEngine engine = LiteRTEngine.FACTORY.load(new File(MODELS, name + ".tflite"), 1, "cpu");
        NpyReader x = new NpyReader(new File(MODELS, name + "_x.npy"));
        NpyReader y = new NpyReader(new File(MODELS, name + "_y.npy"));
        TensorInfo output = engine.outputs().get(0);
        assertEquals(output.type, y.type);
        ByteBuffer[] in = {buffer(engine.inputs().get(0))};
        ByteBuffer[] out = {buffer(output)};
        ByteBuffer expected = buffer(output);
        double largest = 0;
        int samples = 0;
        while (x.next(in[0])) {
            assertTrue(y.next(expected));
            engine.reset();
            engine.run(in, out);
            assertTrue(engine.lastNativeNanos() > 0);
            for (int i = 0; i < output.bytes() / output.type.bytes; i++) {
                double found = output.type == TensorType.INT8 ? out[0].get(i) : out[0].getFloat(4 * i);
                double wanted = output.type == TensorType.INT8 ? expected.get(i) : expected.getFloat(4 * i);
                largest = Math.max(largest, Math.abs(found - wanted));
            }
            samples++;
        }
        x.close();
        y.close();
        engine.close();
        assertTrue(samples >= 100);
        return largest;
    }

    @Test
    public void int8AgreesWithTheHostWithinOneStep() throws Exception {
        double found = difference("full_int8");
        System.out.println("full_int8: at most " + found + " steps from the host");
        assertTrue(found <= 1); // one layer with exact integer sums: kernels differ in the last rounding only
    }

    @Test
    public void floatAgreesWithTheHost() throws Exception {
        double found = difference("float32");
        System.out.println("float32: at most " + found + " from the host");
        assertTrue(found <= 1e-3);
    }

    @Test
    public void statesAreReset() throws Exception {
        for (String name : new String[] {"variable_tensors", "resource_variables", "random_generator"}) {
            double found = difference(name);
            System.out.println(name + ": at most " + found + " from the host");
            assertTrue(name, found <= 1e-3);
        }
    }

    @Test
    public void quantizationIsRead() throws Exception {
        InferenceEngine engine = LiteRTEngine.FACTORY.load(new File(MODELS, "full_int8.tflite"), 1, "cpu");
        TensorInfo input = engine.inputs().get(0);
        assertEquals(TensorType.INT8, input.type);
        assertTrue(input.scale > 0);
        Map<String, Object> description = engine.description();
        assertEquals("LiteRT", description.get("engine"));
        engine.close();
    }

    @Test
    public void missingGpuLibraryAndDamagedModelAreReported() throws Exception {
        try {
            LiteRTEngine.FACTORY.load(new File(MODELS, "full_int8.tflite"), 1, "gpu");
            fail("gpu");
        } catch (BenchException expected) {
            assertTrue(expected.getMessage().contains("GPU library"));
        }
        File broken = File.createTempFile("broken", ".tflite");
        Files.write(broken.toPath(), "no model at all".getBytes("UTF-8"));
        try {
            LiteRTEngine.FACTORY.load(broken, 1, "cpu");
            fail("broken");
        } catch (BenchException expected) {
            assertTrue(expected.getMessage().contains("a model that LiteRT supports"));
        }
    }
}
