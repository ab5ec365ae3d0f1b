package dev.tfkd.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Statistics of raw latencies. Percentiles use the nearest rank, so each is a measured latency. */
public final class Statistics {
    private Statistics() {}

    /** Count, percentiles, standard deviation, and {@code latency_trend}: median of the second half divided by that of the first. */
    public static Map<String, Object> of(long[] nanos) {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        found.put("count", (long) nanos.length);
        if (nanos.length == 0) {
            return found;
        }
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        double sum = 0;
        for (long one : sorted) {
            sum += one;
        }
        double mean = sum / sorted.length;
        double squares = 0;
        for (long one : sorted) {
            squares += (one - mean) * (one - mean);
        }
        found.put("min_ns", sorted[0]);
        for (int percent : new int[] {50, 90, 95, 99}) {
            found.put("p" + percent + "_ns", percentile(sorted, percent));
        }
        found.put("max_ns", sorted[sorted.length - 1]);
        found.put("mean_ns", mean);
        found.put("stdev_ns", Math.sqrt(squares / sorted.length));
        if (nanos.length > 1) {
            int half = nanos.length / 2;
            long before = median(Arrays.copyOf(nanos, half));
            found.put("latency_trend", Json.finite((double) median(Arrays.copyOfRange(nanos, half, nanos.length)) / before));
        }
        return found;
    }

    /** p50 and p90 of each minute; an inference belongs to the minute in which it began. */
    public static List<Object> perMinute(long[] nanos, long[] began) {
        List<Object> found = new ArrayList<Object>();
        for (int from = 0; from < nanos.length; ) {
            long minute = (began[from] - began[0]) / 60000000000L;
            int to = from;
            while (to < nanos.length && (began[to] - began[0]) / 60000000000L == minute) {
                to++;
            }
            long[] sorted = Arrays.copyOfRange(nanos, from, to);
            Arrays.sort(sorted);
            Map<String, Object> one = new LinkedHashMap<String, Object>();
            one.put("minute", minute);
            one.put("count", (long) sorted.length);
            one.put("p50_ns", percentile(sorted, 50));
            one.put("p90_ns", percentile(sorted, 90));
            found.add(one);
            from = to;
        }
        return found;
    }

    /** Percentile of sorted values by the nearest rank. */
    public static long percentile(long[] sorted, int percent) {
        return sorted[Math.max(0, (int) Math.ceil(percent / 100.0 * sorted.length) - 1)];
    }

    /** Median; of an even number of values the lower of the two in the middle. */
    public static long median(long[] values) {
        long[] sorted = values.clone();
        Arrays.sort(sorted);
        return sorted[(sorted.length - 1) / 2];
    }
}
