package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;

import java.util.List;
import java.util.Map;
import org.junit.Test;

public class StatisticsTest {
    @Test
    public void percentilesUseTheNearestRank() {
        long[] nanos = new long[100];
        for (int i = 0; i < 100; i++) {
            nanos[(i * 37) % 100] = i + 1;
        }
        Map<String, Object> found = Statistics.of(nanos);
        assertEquals(50L, found.get("p50_ns"));
        assertEquals(90L, found.get("p90_ns"));
        assertEquals(99L, found.get("p99_ns"));
        assertEquals(50.5, (Double) found.get("mean_ns"), 1e-9);
        assertEquals(Math.sqrt((100 * 100 - 1) / 12.0), (Double) found.get("stdev_ns"), 1e-9);
    }

    @Test
    public void latencyTrendComparesTheHalves() {
        assertEquals(2.0, (Double) Statistics.of(new long[] {10, 10, 10, 20, 20, 20}).get("latency_trend"), 0);
        assertEquals(1L, Statistics.of(new long[] {5}).get("count"));
        assertEquals(0L, Statistics.of(new long[0]).get("count"));
    }

    @Test
    public void minutesBeginAtTheStartOfTheRun() {
        long second = 1000000000L;
        long[] began = {0, 30 * second, 59 * second, 60 * second, 200 * second};
        List<Object> found = Statistics.perMinute(new long[] {1, 2, 3, 9, 7}, began);
        assertEquals(3, found.size());
        assertEquals("{minute=0, count=3, p50_ns=2, p90_ns=3}", found.get(0).toString());
        assertEquals("{minute=3, count=1, p50_ns=7, p90_ns=7}", found.get(2).toString());
    }
}
