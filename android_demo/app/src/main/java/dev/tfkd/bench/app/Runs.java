package dev.tfkd.bench.app;

import android.content.Context;
import dev.tfkd.bench.Json;
import dev.tfkd.bench.NpyReader;
import dev.tfkd.bench.RunFolder;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The folders of the runs, in the app's own storage. */
final class Runs {
    private final Context context;
    final File root;

    Runs(Context context) {
        this.context = context;
        root = new File(context.getFilesDir(), "runs");
        root.mkdirs();
    }

    /** Prepares a run of the bundled student, whose expected outputs are known. */
    RunFolder selfTest(int threads, String accelerator) throws Exception {
        String id = "self-" + System.currentTimeMillis();
        File folder = new File(root, id);
        if (!folder.mkdir()) {
            throw new IOException(folder + " cannot be made");
        }
        Map<String, Object> spec = new LinkedHashMap<String, Object>();
        spec.put("format", 1L);
        spec.put("id", id);
        spec.put("nonce", nonce());
        spec.put("model", asset(folder, "model.tflite"));
        spec.put("inputs", Collections.singletonList(asset(folder, "input_0.npy")));
        spec.put("threads", (long) threads);
        spec.put("accelerator", accelerator);
        spec.put("min_runs", 50L);
        spec.put("min_seconds", 1L);
        spec.put("max_seconds", 150L);
        spec.put("sustained_seconds", 0L);
        spec.put("accuracy", true);
        RunFolder run = new RunFolder(root, id);
        run.write("spec.json", Json.write(spec));
        return run;
    }

    /** Runs that a computer pushed and that were not run yet. */
    List<String> pushed() {
        List<String> found = new ArrayList<String>();
        String[] names = root.list();
        for (String name : names == null ? new String[0] : names) {
            File folder = new File(root, name);
            if (new File(folder, "spec.json").isFile() && !new File(folder, "result.json").isFile()) {
                found.add(name);
            }
        }
        Collections.sort(found);
        return found;
    }

    /** Share of the golden samples whose output is bit for bit what the host's reference kernels gave. */
    double agreement(RunFolder run) throws Exception {
        File expected = run.output("golden.npy");
        copy("golden.npy", expected);
        NpyReader one = new NpyReader(expected);
        NpyReader other = new NpyReader(run.output("output_0.npy"));
        try {
            int bytes = one.type.bytes;
            for (int size : one.shape()) {
                bytes *= size;
            }
            ByteBuffer left = ByteBuffer.allocate(bytes);
            ByteBuffer right = ByteBuffer.allocate(bytes);
            int equal = 0;
            while (one.next(left) && other.next(right)) {
                equal += Arrays.equals(left.array(), right.array()) ? 1 : 0;
            }
            return (double) equal / one.count;
        } finally {
            one.close();
            other.close();
        }
    }

    private Map<String, Object> asset(File folder, String name) throws IOException {
        File file = new File(folder, name);
        copy(name, file);
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        found.put("file", name);
        found.put("sha256", RunFolder.sha256(file));
        found.put("bytes", file.length());
        return found;
    }

    private void copy(String asset, File file) throws IOException {
        InputStream in = context.getAssets().open(asset);
        FileOutputStream out = new FileOutputStream(file);
        try {
            byte[] part = new byte[1 << 16];
            for (int n = in.read(part); n >= 0; n = in.read(part)) {
                out.write(part, 0, n);
            }
        } finally {
            in.close();
            out.close();
        }
    }

    private static String nonce() {
        byte[] bytes = new byte[16];
        new SecureRandom().nextBytes(bytes);
        StringBuilder hex = new StringBuilder();
        for (byte one : bytes) {
            hex.append(String.format("%02x", one));
        }
        return hex.toString();
    }
}
