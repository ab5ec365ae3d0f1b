package dev.tfkd.bench.app;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.nio.file.Files;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONObject;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;

@RunWith(RobolectricTestRunner.class)
public class HistoryTest {
    private final History history = new History(RuntimeEnvironment.getApplication());
    private final File folder = new File(RuntimeEnvironment.getApplication().getFilesDir(), "history");

    private static Map<String, Object> result(long when, int latencies) {
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("when", when);
        long[] nanos = new long[latencies];
        for (int i = 0; i < latencies; i++) {
            nanos[i] = i;
        }
        found.put("latencies_ns", nanos);
        found.put("native_ns", nanos.clone());
        found.put("kept_every", 2L);
        return found;
    }

    @Test
    public void newestIsFirstAndOldestIsDeleted() throws Exception {
        for (int i = 0; i < History.MOST + 3; i++) {
            history.add(result(1700000000000L + i, 1));
        }
        List<JSONObject> found = new History(RuntimeEnvironment.getApplication()).results();
        assertEquals(History.MOST, found.size());
        assertEquals(1700000000000L + History.MOST + 2, found.get(0).getLong("when"));
        assertEquals(History.MOST, folder.list().length); // no temporary file remains
    }

    @Test
    public void manyLatenciesAreThinnedAndKeptEverySaysSo() throws Exception {
        history.add(result(1700000000000L, 2 * History.MOST_LATENCIES + 1));
        JSONObject found = history.results().get(0);
        long[] kept = History.latencies(found);
        assertEquals(6, found.getLong("kept_every")); // every third of every second
        assertArrayEquals(new long[] {0, 3, 6}, java.util.Arrays.copyOf(kept, 3));
        assertTrue(kept.length <= History.MOST_LATENCIES);
    }

    @Test
    public void damagedFileDoesNotHideOthers() throws Exception {
        history.add(result(1700000000000L, 1));
        Files.write(new File(folder, "1700000000006.json").toPath(), new byte[(1 << 20) + 1]);
        Files.write(new File(folder, "1700000000001.json").toPath(), "{\"when\":17".getBytes());
        Files.write(new File(folder, "1700000000002.json").toPath(), "[]".getBytes());
        Files.write(new File(folder, "1700000000003.json").toPath(), "{\"when\":\"now\"}".getBytes());
        Files.write(new File(folder, "1700000000004.json.partial").toPath(), "{".getBytes());
        Files.createSymbolicLink(new File(folder, "1700000000005.json").toPath(), new File(folder, "1700000000000.json").toPath());
        assertEquals(1, history.results().size());
        assertFalse(history.results().get(0).has("error"));
    }
}
