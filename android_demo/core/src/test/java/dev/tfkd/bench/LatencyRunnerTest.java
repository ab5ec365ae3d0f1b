package dev.tfkd.bench;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.List;
import org.junit.Test;

public class LatencyRunnerTest {
    /** A device whose clock advances only by what runs on it. */
    static final class Device implements LatencyRunner.Clock, LatencyRunner.ThermalProbe, LatencyRunner.Listener,
            LatencyRunner.Inference {
        long now;
        long cost = 2000000;
        long perRun;
        long runs;
        int status;
        long cancelAt = Long.MAX_VALUE;
        boolean inRegion;
        final List<String> heard = new ArrayList<String>();

        @Override
        public long nanos() {
            return now;
        }

        @Override
        public int status() {
            assertFalse("the probe ran inside the timed region", inRegion);
            now += 5000000; // a binder call, which must not count
            return status;
        }

        @Override
        public void at(String phase, double share) {
            heard.add(phase);
        }

        @Override
        public boolean cancelled() {
            return now >= cancelAt;
        }

        @Override
        public void run() {
            inRegion = true;
            now += cost;
            cost += perRun;
            runs++;
            inRegion = false;
        }

        @Override
        public long lastNativeNanos() {
            return cost;
        }

        LatencyRunner.Result measure(int minRuns, double minSeconds, double maxSeconds) {
            return new LatencyRunner(this, this, this).run(this, minRuns, minSeconds, maxSeconds);
        }
    }

    @Test
    public void measuresTheInferenceOnly() {
        LatencyRunner.Result result = new Device().measure(50, 1, 150);
        for (long one : result.nanos) {
            assertEquals(2000000, one);
        }
        assertTrue(result.warmUpStable);
        assertTrue(result.warmUpRuns * 2000000L >= 200000000L);
        assertTrue(result.nanos.length >= 490);
    }

    @Test
    public void aSlowModelStillRunsTheLeastNumberOfTimes() {
        Device device = new Device();
        device.cost = 100000000;
        assertEquals(50, device.measure(50, 1, 150).nanos.length);
    }

    @Test
    public void maximumOfSecondsEndsARun() {
        Device device = new Device();
        device.cost = 1000000000;
        assertEquals(5, device.measure(50, 1, 5).nanos.length);
    }

    @Test
    public void unstableWarmUpIsReported() {
        Device device = new Device();
        device.perRun = 1000000;
        LatencyRunner.Result result = device.measure(10, 0, 1000);
        assertFalse(result.warmUpStable);
        assertEquals(10, result.nanos.length);
    }

    @Test
    public void thermalStatusIsReadOncePerSecond() {
        Device device = new Device();
        device.status = 3;
        LatencyRunner.Result result = device.measure(1, 20, 150);
        assertTrue(result.thermal.size() >= 18 && result.thermal.size() <= 23);
        for (int i = 1; i < result.thermal.size(); i++) {
            assertTrue(result.thermal.get(i)[0] > result.thermal.get(i - 1)[0]);
            assertEquals(3, result.thermal.get(i)[1]);
        }
    }

    @Test
    public void cancelStopsWithinASecond() {
        Device device = new Device();
        device.cancelAt = 3000000000L;
        LatencyRunner.Result result = device.measure(1000000, 100, 150);
        assertTrue(result.cancelled);
        assertTrue(device.now <= 4100000000L);
    }

    /** Printed, not asserted: latency on a shared machine is not reproducible. */
    @Test
    public void overheadOfTheTimedRegion() {
        final LatencyRunner.Clock clock = new LatencyRunner.Clock() {
            @Override
            public long nanos() {
                return System.nanoTime();
            }
        };
        final Device quiet = new Device();
        LatencyRunner.Inference nothing = new LatencyRunner.Inference() {
            @Override
            public void run() {}

            @Override
            public long lastNativeNanos() {
                return 0;
            }
        };
        LatencyRunner.ThermalProbe cold = new LatencyRunner.ThermalProbe() {
            @Override
            public int status() {
                return 0;
            }
        };
        long[] nanos = new LatencyRunner(clock, cold, quiet).run(nothing, 200000, 0.2, 5).nanos;
        java.util.Arrays.sort(nanos);
        System.out.println("timed region around nothing: median " + Statistics.percentile(nanos, 50) + " ns, p99 "
                + Statistics.percentile(nanos, 99) + " ns");
        assertTrue(nanos.length > 32768);
    }

    @Test
    public void aMillionRunsAreThinnedEvenly() {
        Device device = new Device();
        device.cost = 10000;
        device.perRun = 1;
        LatencyRunner.Result result = device.measure(200000, 0, 1000);
        assertEquals(200000, result.runs);
        assertEquals(4, result.keptEvery);
        assertEquals(50000, result.nanos.length);
        for (int i = 1; i < result.nanos.length; i++) {
            assertEquals(4, result.nanos[i] - result.nanos[i - 1]);
        }
    }
}
