package dev.tfkd.bench;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Strict JSON (RFC 8259): comments, trailing commas, duplicate keys and text after the value are errors.
 *
 * <p>Objects are {@link Map}, arrays {@link List}, numbers {@link Long} or {@link Double}. Values nest at most 16 levels deep.
 */
public final class Json {
    private static final int DEEPEST = 16;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Parses a text. */
    public static Object parse(String text) throws BenchException {
        Json json = new Json(text);
        json.space();
        Object value = json.value(0);
        json.space();
        if (json.at < text.length()) {
            throw json.wrong("the end of the text");
        }
        return value;
    }

    /** JSON text of a value of the types that {@link #parse} returns, or of long[]. */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out);
        return out.toString();
    }

    private BenchException wrong(String expected) {
        String rest = at < text.length() ? text.substring(at, Math.min(text.length(), at + 20)) : "the end";
        return new BenchException("JSON at character " + at, expected, rest);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private boolean take(char wanted) {
        if (at < text.length() && text.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private Object value(int depth) throws BenchException {
        if (depth > DEEPEST) {
            throw wrong("at most " + DEEPEST + " levels deep");
        }
        if (take('{')) {
            return object(depth);
        }
        if (take('[')) {
            return array(depth);
        }
        if (take('"')) {
            return string();
        }
        for (String word : new String[] {"true", "false", "null"}) {
            if (text.startsWith(word, at)) {
                at += word.length();
                return word.equals("null") ? null : Boolean.valueOf(word);
            }
        }
        return number();
    }

    private Map<String, Object> object(int depth) throws BenchException {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        space();
        if (take('}')) {
            return found;
        }
        do {
            space();
            if (!take('"')) {
                throw wrong("a key");
            }
            String key = string();
            space();
            if (!take(':')) {
                throw wrong("':'");
            }
            space();
            if (found.containsKey(key)) {
                throw new BenchException("JSON at character " + at, "a new key", key);
            }
            found.put(key, value(depth + 1));
            space();
        } while (take(','));
        if (!take('}')) {
            throw wrong("',' or '}'");
        }
        return found;
    }

    private List<Object> array(int depth) throws BenchException {
        List<Object> found = new ArrayList<Object>();
        space();
        if (take(']')) {
            return found;
        }
        do {
            space();
            found.add(value(depth + 1));
            space();
        } while (take(','));
        if (!take(']')) {
            throw wrong("',' or ']'");
        }
        return found;
    }

    private String string() throws BenchException {
        StringBuilder found = new StringBuilder();
        while (at < text.length()) {
            char c = text.charAt(at++);
            if (c == '"') {
                return found.toString();
            }
            if (c < ' ') {
                at--;
                throw wrong("no control character in a string");
            }
            found.append(c == '\\' ? escaped() : c);
        }
        throw wrong("'\"'");
    }

    private char escaped() throws BenchException {
        char c = at < text.length() ? text.charAt(at++) : ' ';
        int known = "\"\\/bfnrt".indexOf(c);
        if (known >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(known);
        }
        if (c == 'u' && at + 4 <= text.length()) {
            int code = 0;
            for (int i = 0; i < 4; i++) {
                int digit = Character.digit(text.charAt(at), 16);
                if (digit < 0 || text.charAt(at) > 'f') {
                    throw wrong("a hexadecimal digit");
                }
                code = code * 16 + digit;
                at++;
            }
            return (char) code;
        }
        at--;
        throw wrong("an escape");
    }

    private Object number() throws BenchException {
        int start = at;
        boolean whole = true;
        take('-');
        int digits = digits();
        boolean padded = digits > 1 && text.charAt(at - digits) == '0';
        if (take('.')) {
            whole = false;
            digits = Math.min(digits, digits());
        }
        if (digits > 0 && (take('e') || take('E'))) {
            whole = false;
            if (!take('+')) {
                take('-');
            }
            digits = digits();
        }
        if (digits == 0 || padded) {
            at = start;
            throw wrong("a value");
        }
        String found = text.substring(start, at);
        try {
            if (whole) {
                return Long.valueOf(found);
            }
        } catch (NumberFormatException error) {
            at = start;
            throw wrong("a whole number of 64 bits");
        }
        return Double.valueOf(found);
    }

    private int digits() {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        return at - start;
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof Map) {
            String comma = "{";
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                out.append(comma);
                quote(String.valueOf(entry.getKey()), out);
                out.append(':');
                write(entry.getValue(), out);
                comma = ",";
            }
            out.append(comma.equals("{") ? "{}" : "}");
        } else if (value instanceof List) {
            String comma = "[";
            for (Object one : (List<?>) value) {
                out.append(comma);
                write(one, out);
                comma = ",";
            }
            out.append(comma.equals("[") ? "[]" : "]");
        } else if (value instanceof long[]) {
            String comma = "[";
            for (long one : (long[]) value) {
                out.append(comma).append(one);
                comma = ",";
            }
            out.append(comma.equals("[") ? "[]" : "]");
        } else if (value instanceof CharSequence) {
            quote(value.toString(), out);
        } else if (value instanceof Double && (((Double) value).isNaN() || ((Double) value).isInfinite())) {
            out.append("null"); // JSON has no such number, and unknown is null
        } else {
            out.append(value);
        }
    }

    private static void quote(String value, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < value.length(); i++) {
            char c = value.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
