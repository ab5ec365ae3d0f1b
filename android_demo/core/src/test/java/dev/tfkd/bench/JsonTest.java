package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.fail;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.junit.Test;

public class JsonTest {
    @Test
    public void parsesWhatItWrites() throws Exception {
        Map<String, Object> value = new LinkedHashMap<String, Object>();
        value.put("text", "\"\\\n\u00e9\u2028");
        value.put("numbers", Arrays.<Object>asList(0L, -7L, Long.MAX_VALUE, 0.25, -1e-9));
        value.put("rest", Arrays.<Object>asList(true, false, null, new LinkedHashMap<String, Object>()));
        assertEquals(value, Json.parse(Json.write(value)));
        assertEquals("[1,2]", Json.write(new long[] {1, 2}));
        assertEquals("null", Json.write(Double.NaN));
    }

    @Test
    public void refusesInvalidJson() {
        String[] wrong = {
            "", "{", "{\"a\":1,}", "[1,]", "{a:1}", "'a'", "01", "-", "1.", ".5", "1e", "+1", "tru", "nul", "\"", "\"\\x\"",
            "\"\\u12g4\"", "\"\n\"", "[1] 2", "{\"a\":1,\"a\":2}", "99999999999999999999", "NaN", "//x\n1", "[1 2]", "{\"a\" 1}",
            "[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]",
        };
        for (String one : wrong) {
            try {
                fail(one + " gave " + Json.parse(one));
            } catch (BenchException expected) {
                assertEquals(true, expected.getMessage().startsWith("JSON at character"));
            }
        }
    }

    @Test
    public void randomBytesGiveAValueOrABenchException() {
        Random random = new Random(0);
        String alphabet = "{}[]\":,0123456789.eE+-truefalsn\\u \n";
        for (int i = 0; i < 200000; i++) {
            StringBuilder text = new StringBuilder();
            for (int n = random.nextInt(24); n >= 0; n--) {
                text.append(alphabet.charAt(random.nextInt(alphabet.length())));
            }
            try {
                Json.parse(text.toString());
            } catch (BenchException expected) {
                continue;
            }
        }
    }
}
