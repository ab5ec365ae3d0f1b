package dev.tfkd.bench;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.Random;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public class NpyTest {
    @Rule
    public final TemporaryFolder folder = new TemporaryFolder();

    private File written(int samples) throws Exception {
        File file = folder.newFile();
        TensorInfo tensor = new TensorInfo("x", TensorType.INT16, new int[] {1, 3, 2}, 0, 0);
        NpyWriter writer = new NpyWriter(file, tensor, samples);
        ByteBuffer sample = ByteBuffer.allocateDirect(12);
        for (int i = 0; i < samples; i++) {
            sample.clear();
            for (int k = 0; k < 12; k++) {
                sample.put((byte) (i + k));
            }
            writer.add(sample);
        }
        writer.close();
        return file;
    }

    @Test
    public void readsWhatItWrites() throws Exception {
        NpyReader reader = new NpyReader(written(5));
        assertEquals(TensorType.INT16, reader.type);
        assertEquals(5, reader.count);
        assertArrayEquals(new int[] {3, 2}, reader.shape());
        ByteBuffer sample = ByteBuffer.allocateDirect(12);
        for (int i = 0; i < 5; i++) {
            assertTrue(reader.next(sample));
            assertEquals(i + 11, sample.get(11));
        }
        assertFalse(reader.next(sample));
        reader.close();
    }

    @Test
    public void refusesDamagedFiles() throws Exception {
        byte[] sound = Files.readAllBytes(written(5).toPath());
        String[][] changes = {
            {"False", "True "}, {"<i2", ">i2"}, {"<i2", "|O "}, {"(5, 3, 2)", "(6, 3, 2)"}, {"(5, 3, 2)", "(0, 3, 2)"},
            {"(5, 3, 2)", "(5, 3, x)"}, {"shape", "shade"}, {"(5, 3, 2)", "(       )"},
        };
        for (String[] change : changes) {
            String text = new String(sound, "ISO-8859-1").replace(change[0], change[1]);
            refused(text.getBytes("ISO-8859-1"), change[1]);
        }
        refused(java.util.Arrays.copyOf(sound, sound.length - 1), "truncated");
        refused(java.util.Arrays.copyOf(sound, sound.length + 1), "longer");
        refused(new byte[0], "empty");
        refused(java.util.Arrays.copyOf(sound, 40), "header cut");
    }

    private void refused(byte[] content, String what) throws Exception {
        File file = folder.newFile();
        Files.write(file.toPath(), content);
        try {
            new NpyReader(file).close();
            fail(what);
        } catch (BenchException expected) {
            assertTrue(expected.getMessage().contains("must be"));
        }
    }

    @Test
    public void damagedHeaderIsRefusedOrReadWithinBounds() throws Exception {
        byte[] sound = Files.readAllBytes(written(3).toPath());
        Random random = new Random(0);
        ByteBuffer sample = ByteBuffer.allocateDirect(1 << 16);
        for (int i = 0; i < 2000; i++) {
            byte[] content = sound.clone();
            for (int n = random.nextInt(4); n >= 0; n--) {
                content[random.nextInt(128)] = (byte) random.nextInt(256);
            }
            File file = folder.newFile();
            Files.write(file.toPath(), content);
            try {
                NpyReader reader = new NpyReader(file);
                while (reader.next(sample)) {
                    assertTrue(reader.count > 0);
                }
                reader.close();
            } catch (BenchException expected) {
                assertTrue(expected.getMessage().contains("must be"));
            }
            assertTrue(file.delete());
        }
    }
}
