package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Map;
import org.json.JSONObject;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class AgreementTest {
    @Rule
    public final TemporaryFolder root = new TemporaryFolder();

    private File file(TensorType type, int[] shape, double... values) throws Exception {
        File file = root.newFile();
        TensorInfo tensor = new TensorInfo("y", type, shape, 1, 0);
        int samples = values.length * type.bytes / tensor.bytes();
        NpyWriter writer = new NpyWriter(file, tensor, samples);
        ByteBuffer sample = ByteBuffer.allocate(tensor.bytes()).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0, at = 0; i < samples; i++, at += sample.capacity() / type.bytes) {
            for (int j = 0; j < sample.capacity() / type.bytes; j++) {
                if (type == TensorType.FLOAT32) {
                    sample.putFloat(4 * j, (float) values[at + j]);
                } else if (type == TensorType.INT64) {
                    sample.putLong(8 * j, (long) values[at + j]);
                } else {
                    sample.put(j, (byte) values[at + j]);
                }
            }
            writer.add(sample);
        }
        writer.close();
        return file;
    }

    private static Map<String, Object> check(Map<String, Object> found, long same, long equal, double worst, boolean agrees) {
        assertEquals(same, found.get("same_class"));
        assertEquals(equal, found.get("bit_equal"));
        assertEquals(worst, (Double) found.get("worst"), 1e-9);
        assertEquals(agrees, found.get("agrees"));
        return found;
    }

    @Test
    public void differenceOfOneStepAgrees() throws Exception {
        int[] shape = {1, 3};
        File outputs = file(TensorType.INT8, shape, -128, 127, 0, 5, 3, 1);
        check(Agreement.of(outputs, outputs), 2, 2, 0, true);
        File expectedOutputs = file(TensorType.INT8, shape, -127, 127, 0, 5, 3, 1);
        assertEquals("steps", check(Agreement.of(outputs, expectedOutputs), 2, 1, 1, true).get("unit"));
    }

    @Test
    public void manyStepsOrAnotherClassDisagree() throws Exception {
        int[] shape = {1, 3};
        File outputs = file(TensorType.INT8, shape, 0, 100, 0);
        check(Agreement.of(outputs, file(TensorType.INT8, shape, 0, 91, 0)), 1, 0, 9, false);
        check(Agreement.of(outputs, file(TensorType.INT8, shape, 101, 100, 0)), 0, 0, 101, false);
    }

    @Test
    public void unsignedBytesAndFloatsAreRead() throws Exception {
        int[] shape = {1, 2};
        check(Agreement.of(file(TensorType.UINT8, shape, 200, 100), file(TensorType.UINT8, shape, 199, 100)), 1, 0, 1, true);
        Map<String, Object> found =
                Agreement.of(file(TensorType.FLOAT32, shape, 0.5, 20), file(TensorType.FLOAT32, shape, 0.5, 40));
        assertEquals("", check(found, 1, 0, 20, false).get("unit")); // half of the expected value
        File near = file(TensorType.FLOAT32, shape, 0.5, 39);
        check(Agreement.of(near, file(TensorType.FLOAT32, shape, 0.5, 40)), 1, 0, 1, true);
        File notANumber = file(TensorType.FLOAT32, shape, 0.5, Double.NaN);
        assertEquals(JSONObject.NULL, Agreement.of(notANumber, notANumber).get("worst"));
    }

    @Test
    public void eachOutputMustAgree() throws Exception {
        File same = file(TensorType.INT8, new int[] {1, 3}, 0, 9, 1);
        File numbers = file(TensorType.FLOAT32, new int[] {1, 1}, 2);
        File other = file(TensorType.FLOAT32, new int[] {1, 1}, 3);
        Map<String, Object> found = Agreement.ofAll(Arrays.asList(same, numbers), Arrays.asList(same, other));
        assertEquals(1L, check(found, 1, 0, 1, false).get("output"));
        assertEquals(1L, check(Agreement.ofAll(Arrays.asList(same, other), Arrays.asList(same, other)), 1, 1, 0, true).get("output"));
        try {
            Agreement.ofAll(Arrays.asList(same, numbers), Arrays.asList(same));
            fail("one file for two outputs");
        } catch (BenchException expected) {
            assertTrue(expected.getMessage(), expected.getMessage().contains("must be 2 files, one per output"));
        }
    }

    @Test
    public void labelsAreCounted() throws Exception {
        File outputs = file(TensorType.INT8, new int[] {1, 3}, 0, 9, 1, 7, 0, 0, 0, 0, 5);
        assertEquals(2, Agreement.correct(outputs, file(TensorType.INT64, new int[] {1}, 1, 0, 0)));
    }

    @Test
    public void outputsOfAnotherTypeOrShapeAreRefused() throws Exception {
        File outputs = file(TensorType.INT8, new int[] {1, 3}, 0, 9, 1);
        refused(outputs, file(TensorType.INT8, new int[] {1, 2}, 0, 9), "of the type and shape of the outputs");
        refused(outputs, file(TensorType.UINT8, new int[] {1, 3}, 0, 9, 1), "of the type and shape of the outputs");
        refused(outputs, file(TensorType.INT8, new int[] {1, 3}, 0, 9, 1, 0, 0, 0), "of the type and shape of the outputs");
        try {
            Agreement.correct(outputs, file(TensorType.INT64, new int[] {1}, 1, 0));
            fail("two labels");
        } catch (BenchException expected) {
            assertTrue(expected.getMessage(), expected.getMessage().contains("must be 1 labels of INT64"));
        }
    }

    private static void refused(File outputs, File expectedOutputs, String message) throws Exception {
        try {
            Agreement.of(outputs, expectedOutputs);
            fail(message);
        } catch (BenchException expected) {
            assertTrue(expected.getMessage(), expected.getMessage().contains(message));
        }
    }
}
