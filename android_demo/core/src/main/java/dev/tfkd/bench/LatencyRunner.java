package dev.tfkd.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Measures the latency of single inferences: a warm-up until the medians of two successive windows of ten differ by at
 * most 5 %, then a minimum number of runs and of seconds. Only the inference is between two readings of the clock.
 */
public final class LatencyRunner {
    private static final int WINDOW = 10;
    private static final long WARM_UP_NANOS = 200000000L;
    private static final long LONGEST_WARM_UP_NANOS = 10000000000L;
    private static final int MOST_KEPT = 1 << 16;

    /** Monotonic clock, in nanoseconds. */
    public interface Clock {
        long nanos();
    }

    /** Android's thermal status: 0 none, 1 light, up to 6 shutdown; -1 if unknown. */
    public interface ThermalProbe {
        int status();
    }

    /** Receives the progress and may cancel the run. */
    public interface Listener {
        /** Called at most once a second, between inferences. */
        void at(String phase, double share);

        boolean cancelled();
    }

    /** Measurements of a run. */
    public static final class Result {
        public long[] nanos = new long[0];
        public long[] began = new long[0];
        public long[] nativeNanos = new long[0];
        /** Number of timed runs. The arrays hold every {@code keptEvery}-th of them. */
        public long runs;
        public long keptEvery = 1;
        public int warmUpRuns;
        public boolean warmUpStable;
        /** Pairs of seconds since the start and thermal status, one per second. */
        public final List<long[]> thermal = new ArrayList<long[]>();
        public boolean cancelled;
    }

    private final Clock clock;
    private final ThermalProbe probe;
    private final Listener listener;

    public LatencyRunner(Clock clock, ThermalProbe probe, Listener listener) {
        this.clock = clock;
        this.probe = probe;
        this.listener = listener;
    }

    /** Runs until both minimums are reached or the maximum of seconds has passed. */
    public Result run(Inference inference, int minRuns, double minSeconds, double maxSeconds) {
        Result result = new Result();
        long origin = clock.nanos();
        long next = watch(result, origin, "warm-up", 0, origin);
        long[] window = new long[2 * WINDOW];
        long now = origin;
        while (!result.warmUpStable && now - origin < LONGEST_WARM_UP_NANOS && !result.cancelled) {
            window[result.warmUpRuns++ % window.length] = time(inference);
            now = clock.nanos();
            if (result.warmUpRuns >= window.length && result.warmUpRuns % WINDOW == 0
                    && now - origin >= WARM_UP_NANOS) {
                long one = Statistics.median(Arrays.copyOf(window, WINDOW));
                long other = Statistics.median(Arrays.copyOfRange(window, WINDOW, window.length));
                result.warmUpStable = Math.abs(one - other) <= 0.05 * Math.max(one, other);
            }
            next = watch(result, origin, "warm-up", 0, next);
        }
        long[] nanos = new long[MOST_KEPT];
        long[] began = new long[MOST_KEPT];
        long[] inside = new long[MOST_KEPT];
        int count = 0;
        long start = now;
        while ((result.runs < minRuns || now - start < minSeconds * 1e9) && now - start < maxSeconds * 1e9
                && !result.cancelled) {
            long from = now;
            long taken = time(inference);
            if (result.runs++ % result.keptEvery == 0) {
                if (count == MOST_KEPT) { // bounds memory: from here on every second latency is kept
                    count = thin(nanos, began, inside);
                    result.keptEvery *= 2;
                }
                began[count] = from;
                nanos[count] = taken;
                inside[count++] = inference.lastNativeNanos();
            }
            now = clock.nanos();
            double share = Math.min((double) result.runs / Math.max(1, minRuns),
                    (now - start) / Math.max(1, minSeconds * 1e9));
            next = watch(result, origin, "latency", Math.min(1, share), next);
        }
        result.nanos = Arrays.copyOf(nanos, count);
        result.began = Arrays.copyOf(began, count);
        result.nativeNanos = Arrays.copyOf(inside, count);
        return result;
    }

    /** One inference on inputs that are already in their buffers. */
    public interface Inference {
        void run();

        long lastNativeNanos();
    }

    private static int thin(long[]... kept) {
        for (long[] values : kept) {
            for (int i = 0; 2 * i < values.length; i++) {
                values[i] = values[2 * i];
            }
        }
        return kept[0].length / 2;
    }

    private long time(Inference inference) {
        long start = clock.nanos();
        inference.run();
        return clock.nanos() - start;
    }

    /** Once a second, outside of the timed region: reads the thermal status, reports progress, checks for a cancel. */
    private long watch(Result result, long origin, String phase, double share, long next) {
        long now = clock.nanos();
        if (now < next) {
            return next;
        }
        result.thermal.add(new long[] {(now - origin) / 1000000000L, probe.status()});
        listener.at(phase, share);
        result.cancelled = listener.cancelled();
        return now + 1000000000L;
    }
}
