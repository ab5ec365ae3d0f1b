package dev.tfkd.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.regex.Pattern;
import org.json.JSONArray;
import org.json.JSONObject;

/** Specification of a run. Every key is required, so that a mistake is an error and not a default. */
public final class RunSpec {
    /** Form of a run's id, which is the name of its folder. */
    public static final Pattern ID = Pattern.compile("[a-z0-9-]{1,64}");

    private static final Pattern FILE = Pattern.compile("[a-z0-9_-]{1,100}\\.(tflite|npy)");
    private static final Pattern HASH = Pattern.compile("[0-9a-f]{64}");
    private static final Pattern NONCE = Pattern.compile("[0-9a-f]{32}");
    private static final long LARGEST_MODEL = 512L << 20;
    private static final long LARGEST_DATA = 4L << 30;

    /** A file in the run's folder. */
    public static final class Asset {
        public final String file;
        public final String sha256;
        public final long bytes;

        private Asset(JSONObject from, String where, long largest) throws BenchException {
            keys(from, where, "file", "sha256", "bytes");
            file = text(from, where, "file", FILE);
            sha256 = text(from, where, "sha256", HASH);
            bytes = whole(from, where, "bytes", 1, largest);
        }

        /** Samples or outputs, from a parsed JSON object. */
        public static Asset data(Object from, String where) throws BenchException {
            return new Asset(object(from, where), where, LARGEST_DATA);
        }
    }

    public final String id;
    public final String nonce;
    public final Asset model;
    public final List<Asset> inputs;
    public final int threads;
    public final String accelerator;
    public final int minRuns;
    public final double minSeconds;
    public final double maxSeconds;
    public final double sustainedSeconds;
    public final boolean accuracy;

    private RunSpec(JSONObject from) throws BenchException {
        keys(from, "run", "format", "id", "nonce", "model", "inputs", "threads", "accelerator", "min_runs",
                "min_seconds", "max_seconds", "sustained_seconds", "accuracy");
        whole(from, "run", "format", 1, 1);
        id = text(from, "run", "id", ID);
        nonce = text(from, "run", "nonce", NONCE);
        model = new Asset(object(from.opt("model"), "model"), "model", LARGEST_MODEL);
        JSONArray files = from.optJSONArray("inputs");
        if (files == null || files.length() == 0) {
            throw new BenchException("run.inputs", "a list of one file per input", from.opt("inputs"));
        }
        List<Asset> found = new ArrayList<Asset>();
        for (int i = 0; i < files.length(); i++) {
            found.add(Asset.data(files.opt(i), "inputs[" + i + "]"));
        }
        inputs = Collections.unmodifiableList(found);
        threads = (int) whole(from, "run", "threads", 1, 64);
        accelerator = text(from, "run", "accelerator", Pattern.compile("cpu|gpu|nnapi"));
        minRuns = (int) whole(from, "run", "min_runs", 0, 1000000);
        minSeconds = number(from, "min_seconds", 0, 3600);
        maxSeconds = number(from, "max_seconds", minSeconds, 7200);
        sustainedSeconds = number(from, "sustained_seconds", 0, 7200);
        if (!(from.opt("accuracy") instanceof Boolean)) {
            throw new BenchException("run.accuracy", "true or false", from.opt("accuracy"));
        }
        accuracy = (Boolean) from.opt("accuracy");
    }

    /** Parses a specification. Missing and unknown keys are errors. */
    public static RunSpec parse(String text) throws BenchException {
        return new RunSpec(Json.parse(text, "spec.json"));
    }

    private static JSONObject object(Object value, String where) throws BenchException {
        if (!(value instanceof JSONObject)) {
            throw new BenchException(where, "an object", value);
        }
        return (JSONObject) value;
    }

    private static void keys(JSONObject from, String where, String... wanted) throws BenchException {
        for (Iterator<String> names = from.keys(); names.hasNext(); ) {
            String key = names.next();
            if (!Arrays.asList(wanted).contains(key)) {
                throw new BenchException(where, "an object with the keys " + Arrays.toString(wanted), key);
            }
        }
    }

    private static String text(JSONObject from, String where, String key, Pattern form) throws BenchException {
        Object value = from.opt(key);
        if (!(value instanceof String) || !form.matcher((String) value).matches()) {
            throw new BenchException(where + "." + key, "a string of the form " + form, value);
        }
        return (String) value;
    }

    private static long whole(JSONObject from, String where, String key, long least, long most) throws BenchException {
        Object value = from.opt(key);
        long found = Json.isWhole(value) ? ((Number) value).longValue() : least - 1;
        if (found < least || found > most) {
            throw new BenchException(where + "." + key, "a whole number from " + least + " to " + most, value);
        }
        return found;
    }

    private static double number(JSONObject from, String key, double least, double most) throws BenchException {
        Object value = from.opt(key);
        double found = value instanceof Number ? ((Number) value).doubleValue() : Double.NaN;
        if (!(found >= least && found <= most)) {
            throw new BenchException("run." + key, "a number from " + least + " to " + most, value);
        }
        return found;
    }
}
