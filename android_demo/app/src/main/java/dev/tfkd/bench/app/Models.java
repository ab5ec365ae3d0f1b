package dev.tfkd.bench.app;

import android.content.Context;
import dev.tfkd.bench.Agreement;
import dev.tfkd.bench.BenchException;
import dev.tfkd.bench.Json;
import dev.tfkd.bench.RunFolder;
import dev.tfkd.bench.RunSpec;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.json.JSONArray;
import org.json.JSONObject;

/**
 * Models to choose from, with samples, each in a folder of the app's own storage. {@code model.json} holds the files and
 * their hashes: {@code model}, {@code inputs}, {@code golden} (the host's outputs, one file per output) and {@code labels}; the
 * last two may be null.
 */
final class Models {
    static final String BUNDLED = "bundled";
    private static final String DESCRIPTION = "model.json";

    private final Context context;
    private final File root;

    Models(Context context) {
        this.context = context;
        root = new File(context.getFilesDir(), "models");
    }

    /** Ids of the bundled model and of those that were pushed by tools/push_model.py. */
    List<String> ids() {
        List<String> found = new ArrayList<String>();
        String[] names = root.list();
        for (String name : names == null ? new String[0] : names) {
            if (!name.equals(BUNDLED) && RunSpec.ID.matcher(name).matches()
                    && new File(new File(root, name), DESCRIPTION).isFile()) {
                found.add(name);
            }
        }
        Collections.sort(found);
        found.add(0, BUNDLED);
        return found;
    }

    /** Writes the specification of a run next to the model. Its files are verified when it runs. */
    RunFolder prepare(String id, int threads, String accelerator, double sustainedSeconds)
            throws BenchException, IOException {
        if (id.equals(BUNDLED)) {
            unpack();
        }
        RunFolder folder = new RunFolder(root, id);
        JSONObject description = description(folder);
        Map<String, Object> spec = new LinkedHashMap<String, Object>();
        spec.put("format", 1L);
        spec.put("id", id);
        spec.put("nonce", String.format("%032x", new BigInteger(128, new SecureRandom())));
        spec.put("model", description.opt("model"));
        spec.put("inputs", description.opt("inputs"));
        spec.put("threads", (long) threads);
        spec.put("accelerator", accelerator);
        spec.put("min_runs", 50L);
        spec.put("min_seconds", 1L);
        spec.put("max_seconds", 150L);
        spec.put("sustained_seconds", sustainedSeconds);
        spec.put("accuracy", true);
        folder.write("spec.json", Json.write(spec));
        return folder;
    }

    /** Adds {@code agreement} and {@code correct} to a finished run, as far as the model has golden outputs and labels. */
    void judge(RunFolder folder, Map<String, Object> result) throws BenchException, IOException {
        JSONObject description = description(folder);
        if (!description.isNull("golden")) {
            Object value = description.opt("golden");
            JSONArray files = value instanceof JSONArray ? (JSONArray) value : new JSONArray().put(value); // one, as formerly
            List<File> outputs = new ArrayList<File>();
            List<File> golden = new ArrayList<File>();
            for (int i = 0; i < files.length(); i++) {
                golden.add(folder.verified(RunSpec.Asset.data(files.opt(i), DESCRIPTION + " golden")));
            }
            for (int i = 0; i < ((List<?>) result.get("outputs")).size(); i++) {
                outputs.add(folder.output("output_" + i + ".npy"));
            }
            result.put("agreement", Agreement.ofAll(outputs, golden));
        }
        if (!description.isNull("labels")) {
            File labels = folder.verified(RunSpec.Asset.data(description.opt("labels"), DESCRIPTION + " labels"));
            result.put("correct", Agreement.correct(folder.output("output_0.npy"), labels));
        }
    }

    private static JSONObject description(RunFolder folder) throws BenchException, IOException {
        return Json.parse(folder.text(DESCRIPTION), DESCRIPTION);
    }

    /** Copies the bundled model from the assets; each time, as an update of the app may contain another one. */
    private void unpack() throws IOException {
        File folder = new File(root, BUNDLED);
        if (!folder.isDirectory() && !folder.mkdirs()) {
            throw new IOException(folder + " cannot be created");
        }
        for (String name : context.getAssets().list(BUNDLED)) {
            InputStream in = context.getAssets().open(BUNDLED + "/" + name);
            FileOutputStream out = new FileOutputStream(new File(folder, name));
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
    }
}
