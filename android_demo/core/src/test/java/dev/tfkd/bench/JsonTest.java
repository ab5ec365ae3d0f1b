package dev.tfkd.bench;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;

public class JsonTest {
    @Test
    public void parsesWhatItWrites() throws Exception {
        Map<String, Object> value = new LinkedHashMap<String, Object>();
        value.put("text", "\"\\\n/\u00e9\u2028");
        value.put("numbers", new long[] {0, -7, Long.MAX_VALUE});
        value.put("pairs", Arrays.<Object>asList(new long[] {1, 2}, new long[] {3, 4}));
        value.put("fraction", Json.finite(-1e-9));
        value.put("unknown", Json.finite(Double.NaN));
        value.put("object", Collections.singletonMap("yes", true));
        JSONObject found = Json.parse(Json.write(value), "text");
        assertEquals(value.keySet(), found.keySet());
        assertEquals(value.get("text"), found.get("text"));
        JSONArray numbers = found.getJSONArray("numbers");
        assertArrayEquals(new long[] {0, -7, Long.MAX_VALUE}, new long[] {numbers.getLong(0), numbers.getLong(1), numbers.getLong(2)});
        assertEquals("[[1,2],[3,4]]", found.getJSONArray("pairs").toString());
        assertEquals(-1e-9, found.getDouble("fraction"), 0);
        assertTrue(found.isNull("unknown"));
        assertEquals(true, found.getJSONObject("object").get("yes"));
    }

    @Test
    public void latenciesOfALongRunFitInMemory() throws Exception { // the heap has 48 MB
        long[] nanos = new long[100000];
        Arrays.fill(nanos, 123456789012L);
        Map<String, Object> value = new LinkedHashMap<String, Object>();
        value.put("latencies_ns", nanos);
        value.put("native_ns", nanos);
        assertEquals(2 * (nanos.length * 13 + 1) + "{\"latencies_ns\":,\"native_ns\":}".length(), Json.write(value).length());
    }

    @Test
    public void onlyWholeNumbersOf64BitsAreWhole() throws Exception {
        JSONObject found = Json.parse("{\"a\":[1,-9223372036854775808,1.0,1e3,99999999999999999999,\"1\",null,true]}", "text");
        List<Boolean> whole = new ArrayList<Boolean>();
        for (int i = 0; i < found.getJSONArray("a").length(); i++) {
            whole.add(Json.isWhole(found.getJSONArray("a").opt(i)));
        }
        assertEquals(Arrays.asList(true, true, false, false, false, false, false, false), whole);
        assertFalse(Json.isWhole(found.opt("b")));
    }

    @Test
    public void refusesWhatIsNotOneObject() {
        String[] wrong = {
            "", " ", "{", "}", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":[1}", "{\"a\" 1}", "{\"a\":\"", "[]", "1", "null", "\"a\"",
            "{} {}", "{}x", "{\"a\":1}]", repeated("[", 1000), repeated("{\"a\":", 200000), repeated("[", 1000000),
        };
        for (String one : wrong) {
            try {
                fail(one + " was parsed as " + Json.parse(one, "text"));
            } catch (BenchException expected) {
                assertTrue(expected.getMessage(), expected.getMessage().startsWith("text: must be "));
                assertTrue(expected.getMessage().length() < 300);
            }
        }
    }

    private static String repeated(String part, int times) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < times; i++) {
            text.append(part);
        }
        return text.toString();
    }

    @Test
    public void numbersThatJsonLacksAreNotWritten() {
        for (double one : new double[] {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY}) {
            assertEquals(JSONObject.NULL, Json.finite(one));
            try {
                fail(Json.write(Collections.singletonMap("a", one)));
            } catch (RuntimeException expected) {
                continue;
            }
        }
    }

    @Test
    public void randomTextIsAnObjectOrABenchException() {
        Random random = new Random(0);
        String alphabet = "{}[]\":,0123456789.eE+-truefalsn\\u \n";
        for (int i = 0; i < 200000; i++) {
            StringBuilder text = new StringBuilder("{");
            for (int n = random.nextInt(24); n >= 0; n--) {
                text.append(alphabet.charAt(random.nextInt(alphabet.length())));
            }
            try {
                Json.parse(text.toString(), "text");
            } catch (BenchException expected) {
                continue;
            }
        }
    }
}
