package dev.tfkd.bench.app;

import android.content.Context;
import dev.tfkd.bench.BenchException;
import dev.tfkd.bench.Json;
import dev.tfkd.bench.RunFolder;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.json.JSONArray;
import org.json.JSONObject;

/** Results of earlier runs, one file each in the app's own storage, written atomically. */
final class History {
    static final int MOST = 50;
    /** Number of latencies kept per run: enough for a histogram, and below Android's size limit for sharing. */
    static final int MOST_LATENCIES = 2000;
    private static final String NAME = "[0-9]{13}\\.json";

    private final File root;

    History(Context context) {
        root = new File(context.getFilesDir(), "history");
    }

    /** Saves a result under its {@code when} in milliseconds and deletes the oldest beyond the maximum. */
    void add(Map<String, Object> result) throws IOException {
        if (!root.isDirectory() && !root.mkdirs()) {
            throw new IOException(root + " cannot be created");
        }
        thin(result);
        try {
            folder().write(String.format(Locale.ROOT, "%013d.json", (Long) result.get("when")), Json.write(result));
        } catch (BenchException error) {
            throw new IOException(error);
        }
        List<String> names = names();
        for (String name : names.subList(Math.min(MOST, names.size()), names.size())) {
            new File(root, name).delete();
        }
    }

    /** All readable results, the newest first. */
    List<JSONObject> results() {
        List<JSONObject> found = new ArrayList<JSONObject>();
        for (String name : names()) {
            try {
                found.add(read(name));
            } catch (BenchException error) {
                continue; // damaged: the others are shown
            } catch (IOException error) {
                continue;
            }
        }
        return found;
    }

    private JSONObject read(String name) throws BenchException, IOException {
        JSONObject result = Json.parse(folder().text(name), name);
        if (!Json.isWhole(result.opt("when"))) {
            throw new BenchException(name, "a result with a time", "another object");
        }
        return result;
    }

    private RunFolder folder() throws BenchException, IOException {
        return new RunFolder(root.getParentFile(), root.getName());
    }

    private List<String> names() {
        List<String> found = new ArrayList<String>();
        String[] names = root.list();
        for (String name : names == null ? new String[0] : names) {
            if (name.matches(NAME)) {
                found.add(name);
            }
        }
        Collections.sort(found, Collections.reverseOrder());
        return found;
    }

    /** Keeps every n-th latency and records n in {@code kept_every}. */
    private static void thin(Map<String, Object> result) {
        if (!(result.get("latencies_ns") instanceof long[])) {
            return;
        }
        int every = 1 + (((long[]) result.get("latencies_ns")).length - 1) / MOST_LATENCIES;
        for (String key : new String[] {"latencies_ns", "native_ns"}) {
            long[] all = (long[]) result.get(key);
            long[] kept = new long[(all.length + every - 1) / every];
            for (int i = 0; i < kept.length; i++) {
                kept[i] = all[i * every];
            }
            result.put(key, kept);
        }
        result.put("kept_every", every * (Long) result.get("kept_every"));
    }

    /** Latencies of a result; 0 for what is not a number. */
    static long[] latencies(JSONObject result) {
        JSONArray found = result.optJSONArray("latencies_ns");
        long[] nanos = new long[found == null ? 0 : found.length()];
        for (int i = 0; i < nanos.length; i++) {
            nanos[i] = found.optLong(i);
        }
        return nanos;
    }
}
