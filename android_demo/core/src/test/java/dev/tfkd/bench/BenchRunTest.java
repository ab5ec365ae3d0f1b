package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.StandardOpenOption;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONObject;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class BenchRunTest {
    private static final TensorInfo IMAGE = new TensorInfo("x", TensorType.INT8, new int[] {1, 32, 32, 3}, 1, -128);
    private static final TensorInfo SCORES = new TensorInfo("y", TensorType.INT8, new int[] {1, 10}, 0.5f, 3);

    @Rule
    public final TemporaryFolder root = new TemporaryFolder();

    private final LatencyRunnerTest.Device device = new LatencyRunnerTest.Device();
    private boolean loaded;
    private boolean closed;

    /** An engine that returns nine bytes of the image and the number of runs since the last reset. */
    private final InferenceEngine.Factory echo = new InferenceEngine.Factory() {
        @Override
        public InferenceEngine load(File model, int threads, String accelerator) {
            loaded = true;
            return new InferenceEngine() {
                private byte state;

                @Override
                public List<TensorInfo> inputs() {
                    return Collections.singletonList(IMAGE);
                }

                @Override
                public List<TensorInfo> outputs() {
                    return Collections.singletonList(SCORES);
                }

                @Override
                public void reset() {
                    state = 0;
                }

                @Override
                public void run(ByteBuffer[] in, ByteBuffer[] out) {
                    device.run();
                    for (int i = 0; i < 9; i++) {
                        out[0].put(i, in[0].get(i));
                    }
                    out[0].put(9, ++state);
                }

                @Override
                public long lastNativeNanos() {
                    return -1;
                }

                @Override
                public Map<String, Object> description() {
                    return new LinkedHashMap<String, Object>();
                }

                @Override
                public void close() {
                    closed = true;
                }
            };
        }
    };

    private File prepare(int samples, TensorInfo data) throws Exception {
        File folder = root.newFolder("run-1");
        Files.write(new File(folder, "model.tflite").toPath(), new byte[] {1, 2, 3});
        File input = new File(folder, "input_0.npy");
        NpyWriter writer = new NpyWriter(input, data, samples);
        ByteBuffer sample = ByteBuffer.allocateDirect(data.bytes());
        for (int i = 0; i < samples; i++) {
            sample.put(0, (byte) (i % 100));
            sample.put(1, (byte) (i / 100));
            writer.add(sample);
        }
        writer.close();
        String spec = RunSpecTest.SPEC
                .replaceFirst(RunSpecTest.HASH, RunFolder.sha256(new File(folder, "model.tflite")))
                .replaceFirst(RunSpecTest.HASH, RunFolder.sha256(input))
                .replace("\"bytes\":10", "\"bytes\":3").replace("\"bytes\":20", "\"bytes\":" + input.length());
        Files.write(new File(folder, "spec.json").toPath(), spec.getBytes("UTF-8"));
        return folder;
    }

    private Map<String, Object> run() throws Exception {
        return new BenchRun(echo, device, device, device, Collections.<String, Object>singletonMap("model", "desk"))
                .run(new RunFolder(root.getRoot(), "run-1"));
    }

    @Test
    public void tenThousandImagesRunInLittleMemory() throws Exception {
        File folder = prepare(10000, IMAGE); // 30 MB; the heap has 48 MB
        Map<String, Object> result = run();
        assertEquals(true, result.get("valid"));
        assertEquals(10000L, result.get("samples"));
        assertTrue(closed);
        NpyReader reader = new NpyReader(new File(folder, "output_0.npy"));
        ByteBuffer sample = ByteBuffer.allocateDirect(10);
        for (int i = 0; i < 10000; i++) {
            assertTrue(reader.next(sample));
            assertEquals((byte) (i % 100), sample.get(0));
            assertEquals((byte) (i / 100), sample.get(1));
            assertEquals("a state passed from one sample to the next", 1, sample.get(9));
        }
        reader.close();
        JSONObject stored = new JSONObject(new String(Files.readAllBytes(new File(folder, "result.json").toPath()), "UTF-8"));
        assertEquals("0123456789abcdef0123456789abcdef", stored.get("nonce"));
        assertEquals(((long[]) result.get("latencies_ns")).length, stored.getJSONArray("latencies_ns").length());
        assertTrue(device.heard.indexOf("accuracy") > device.heard.lastIndexOf("latency"));
        assertFalse(new File(folder, "result.json.partial").exists());
    }

    @Test
    public void highThermalStatusMakesARunInvalid() throws Exception {
        prepare(3, IMAGE);
        device.status = 2;
        Map<String, Object> result = run();
        assertEquals(false, result.get("valid"));
        assertTrue(result.get("reasons").toString().contains("thermal status 2"));
    }

    @Test
    public void aCancelledRunIsInvalidAndHasNoOutputs() throws Exception {
        prepare(3, IMAGE);
        device.cancelAt = 500000000L;
        Map<String, Object> result = run();
        assertTrue(result.get("reasons").toString().contains("cancelled"));
        assertEquals("[]", result.get("outputs").toString());
    }

    @Test
    public void changedFilesAreRefused() throws Exception {
        File folder = prepare(3, IMAGE);
        Files.write(new File(folder, "model.tflite").toPath(), new byte[] {1, 2, 4});
        refused("model.tflite: must be a file with SHA-256");
        Files.write(new File(folder, "model.tflite").toPath(), new byte[] {1, 2});
        refused("model.tflite: must be 3 bytes long");
        Files.write(new File(folder, "model.tflite").toPath(), new byte[] {1, 2, 3});
        Files.write(new File(folder, "input_0.npy").toPath(), new byte[1000], StandardOpenOption.WRITE);
        refused("input_0.npy: must be a file with SHA-256");
        assertFalse("an engine saw a file before its hash was known", loaded);
        assertFalse(new File(folder, "result.json").exists());
    }

    @Test
    public void linksAreNotFollowed() throws Exception {
        File folder = prepare(3, IMAGE);
        for (String name : new String[] {"model.tflite", "input_0.npy", "spec.json"}) {
            File file = new File(folder, name);
            File elsewhere = new File(root.getRoot(), name);
            Files.move(file.toPath(), elsewhere.toPath());
            Files.createSymbolicLink(file.toPath(), elsewhere.toPath());
            refused(name + ": must be a file in the run's folder, not a link");
            Files.delete(file.toPath());
            Files.move(elsewhere.toPath(), file.toPath());
        }
        assertFalse(loaded);
        Files.move(folder.toPath(), new File(root.getRoot(), "elsewhere").toPath());
        Files.createSymbolicLink(folder.toPath(), new File(root.getRoot(), "elsewhere").toPath());
        refused("run run-1: must be a folder, not a link");
    }

    @Test
    public void aResultReplacesALinkAndDoesNotWriteThroughIt() throws Exception {
        File folder = prepare(3, IMAGE);
        File secret = root.newFile();
        Files.createSymbolicLink(new File(folder, "result.json").toPath(), secret.toPath());
        run();
        assertEquals(0, secret.length());
        assertFalse(Files.isSymbolicLink(new File(folder, "result.json").toPath()));
    }

    @Test
    public void specificationOfMoreThanAMebibyteIsRefused() throws Exception {
        File folder = prepare(3, IMAGE);
        Files.write(new File(folder, "spec.json").toPath(), new byte[(1 << 20) + 1]);
        refused("spec.json: must be at most 1048576 bytes");
    }

    @Test
    public void dataOfAnotherShapeIsRefused() throws Exception {
        prepare(3, new TensorInfo("x", TensorType.INT8, new int[] {1, 32, 32, 1}, 1, 0));
        refused("samples of input x");
        assertTrue(closed);
    }

    @Test
    public void foldersOutsideAreRefused() throws Exception {
        for (String id : new String[] {"..", "a/b", "", "A", "missing"}) {
            try {
                new RunFolder(root.getRoot(), id);
                fail(id);
            } catch (BenchException expected) {
                assertTrue(expected.getMessage().contains("run"));
            }
        }
    }

    @Test
    public void quantizesAsTheInterpreterDoes() {
        assertEquals(127, IMAGE.quantize(300));
        assertEquals(-128, IMAGE.quantize(-5));
        assertEquals(4, SCORES.quantize(0.6f));
        assertEquals(3, SCORES.quantize(0.25f)); // half a step is rounded to even
        assertEquals(0.5f, SCORES.dequantize(4), 0);
    }

    private void refused(String message) throws Exception {
        try {
            run();
            fail(message);
        } catch (BenchException expected) {
            assertTrue(expected.getMessage(), expected.getMessage().contains(message));
        }
    }
}
