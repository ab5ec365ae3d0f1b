package dev.tfkd.bench;

import java.util.Map;
import org.json.JSONException;
import org.json.JSONObject;
import org.json.JSONTokener;

/** The checks that {@code org.json} leaves to its callers. Android contains {@code org.json}, so the app does not. */
public final class Json {
    private static final int LONGEST_REASON = 200;

    private Json() {}

    /**
     * Parses a text that must be one JSON object.
     *
     * @param where name of the text in error messages
     */
    public static JSONObject parse(String text, String where) throws BenchException {
        try {
            JSONTokener tokens = new JSONTokener(text);
            Object value = tokens.nextValue();
            if (!(value instanceof JSONObject)) {
                throw new BenchException(where, "a JSON object", shortened(String.valueOf(value)));
            }
            if (tokens.nextClean() != 0) {
                throw new BenchException(where, "one JSON object", "more text after it");
            }
            return (JSONObject) value;
        } catch (JSONException error) {
            throw new BenchException(where, "a JSON object", shortened(String.valueOf(error.getMessage())));
        } catch (StackOverflowError error) { // Android's parser is recursive and has no limit of its own
            throw new BenchException(where, "a JSON object", "values that are nested too deeply");
        }
    }

    /** JSON text of a map whose values are text, finite numbers, booleans, {@link JSONObject#NULL}, arrays, collections and maps. */
    public static String write(Map<String, ?> value) {
        String text = new JSONObject(value).toString();
        if (text == null) { // Android's way to report NaN and infinity
            throw new IllegalArgumentException("JSON has no number that is NaN or infinite");
        }
        return text;
    }

    /** A number as a value of a JSON object: null if JSON cannot represent it. */
    static Object finite(double value) {
        return Double.isNaN(value) || Double.isInfinite(value) ? JSONObject.NULL : (Object) value;
    }

    /** Whether a value was written as a whole number of at most 64 bits. */
    public static boolean isWhole(Object value) {
        return value instanceof Integer || value instanceof Long;
    }

    /** Android's messages contain the whole text. */
    private static String shortened(String reason) {
        return reason.length() <= LONGEST_REASON ? reason : reason.substring(0, LONGEST_REASON) + "...";
    }
}
