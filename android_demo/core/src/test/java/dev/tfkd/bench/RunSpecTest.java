package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import org.junit.Test;

public class RunSpecTest {
    static final String HASH = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static final String SPEC = "{\"format\":1,\"id\":\"run-1\",\"nonce\":\"0123456789abcdef0123456789abcdef\","
            + "\"model\":{\"file\":\"model.tflite\",\"sha256\":\"" + HASH + "\",\"bytes\":10},"
            + "\"inputs\":[{\"file\":\"input_0.npy\",\"sha256\":\"" + HASH + "\",\"bytes\":20}],"
            + "\"threads\":2,\"accelerator\":\"cpu\",\"min_runs\":50,\"min_seconds\":1,\"max_seconds\":150,"
            + "\"sustained_seconds\":0,\"accuracy\":true}";

    @Test
    public void readsEveryField() throws Exception {
        RunSpec spec = RunSpec.parse(SPEC);
        assertEquals("run-1", spec.id);
        assertEquals(10, spec.model.bytes);
        assertEquals("input_0.npy", spec.inputs.get(0).file);
        assertEquals(2, spec.threads);
        assertEquals(50, spec.minRuns);
        assertEquals(150, spec.maxSeconds, 0);
        assertTrue(spec.accuracy);
    }

    @Test
    public void refusesInvalidFieldsAndNamesThem() {
        String[][] changes = {
            {"\"format\":1", "\"format\":2", "format"},
            {"run-1", "../run", "id"},
            {"run-1", "Run", "id"},
            {"\"nonce\":\"0", "\"nonce\":\"", "nonce"},
            {"model.tflite", "../model.tflite", "model.file"},
            {"model.tflite", "/data/model.tflite", "model.file"},
            {"input_0.npy", "a/input_0.npy", "inputs[0].file"},
            {"\"bytes\":10", "\"bytes\":0", "model.bytes"},
            {"\"bytes\":10", "\"bytes\":9000000000", "model.bytes"},
            {"\"bytes\":10", "\"bytes\":\"10\"", "model.bytes"},
            {"\"threads\":2", "\"threads\":0", "threads"},
            {"\"threads\":2", "\"threads\":2.0", "threads"},
            {"\"cpu\"", "\"tpu\"", "accelerator"},
            {"\"max_seconds\":150", "\"max_seconds\":0.5", "max_seconds"},
            {"\"accuracy\":true", "\"accuracy\":1", "accuracy"},
            {"\"accuracy\":true", "\"accuracy\":true,\"more\":1", "more"},
            {"\"threads\":2,", "", "threads"},
            {"\"threads\":2", "\"threads\":99999999999999999999", "threads"},
            {"\"threads\":2", "\"threads\":null", "threads"},
            {"\"min_seconds\":1", "\"min_seconds\":NaN", "NaN"},
            {"\"max_seconds\":150", "\"max_seconds\":1e400", "Infinity"},
            {"\"max_seconds\":150", "\"max_seconds\":1e300", "max_seconds"},
            {"\"sustained_seconds\":0", "\"sustained_seconds\":\"0\"", "sustained_seconds"},
            {"\"inputs\":[{", "\"inputs\":[1,{", "inputs[0]"},
            {"\"model\":{", "\"model\":[],\"x\":{", "x"},
            {"true}", "true} {}", "spec.json"},
            {"true}", "true", "spec.json"},
            {"\"inputs\":[", "\"inputs\":[],\"x\":[", "x"},
        };
        for (String[] change : changes) {
            String text = SPEC.replace(change[0], change[1]);
            assertTrue(change[0], !text.equals(SPEC));
            try {
                RunSpec.parse(text);
                fail(change[1]);
            } catch (BenchException expected) {
                assertTrue(expected.getMessage(), expected.getMessage().contains(change[2]));
            }
        }
    }
}
