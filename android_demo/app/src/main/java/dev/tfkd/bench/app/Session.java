package dev.tfkd.bench.app;

import android.os.Handler;
import android.os.Looper;
import dev.tfkd.bench.BenchException;
import dev.tfkd.bench.BenchRun;
import dev.tfkd.bench.LatencyRunner;
import dev.tfkd.bench.LiteRTEngine;
import dev.tfkd.bench.RunFolder;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One run by hand, on a thread of its own; it goes on while the screen that shows it is turned or made dark. */
final class Session implements LatencyRunner.Listener, Runnable {
    /** Shows a run; called on the main thread. */
    interface Screen {
        void at(String phase, double share);

        void ended(Map<String, Object> result);
    }

    /** Held by the run that runs: two would time each other. */
    static final Object TURN = new Object();

    private final Models models;
    private final History history;
    private final Device device;
    private final String model;
    private final int threads;
    private final String accelerator;
    final double sustainedSeconds;

    private final Handler main = new Handler(Looper.getMainLooper());
    private Screen screen; // of the main thread alone
    private Map<String, Object> result; // so is this
    private volatile String cancelled;

    Session(Models models, History history, Device device, String model, int threads, String accelerator,
            double sustainedSeconds) {
        this.models = models;
        this.history = history;
        this.device = device;
        this.model = model;
        this.threads = threads;
        this.accelerator = accelerator;
        this.sustainedSeconds = sustainedSeconds;
    }

    void start() {
        new Thread(this, "bench").start();
    }

    /** Which screen shows it, or null; one that comes after the end hears of it at once. */
    void showOn(Screen shown) {
        screen = shown;
        if (screen != null && result != null) {
            screen.ended(result);
        }
    }

    void cancel(String why) {
        cancelled = why;
    }

    @Override
    public void run() {
        final Map<String, Object> found;
        synchronized (TURN) {
            found = measured();
        }
        main.post(new Runnable() {
            @Override
            public void run() {
                result = found;
                if (screen != null) {
                    screen.ended(found);
                }
            }
        });
    }

    /** The result, or what went wrong under {@code error}; kept in the history either way. */
    private Map<String, Object> measured() {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        found.put("model", model);
        found.put("when", System.currentTimeMillis());
        found.put("sustained_seconds", sustainedSeconds);
        found.put("threads", (long) threads);
        found.put("accelerator", accelerator);
        try {
            RunFolder folder = models.prepare(model, threads, accelerator, sustainedSeconds);
            found.putAll(new BenchRun(LiteRTEngine.FACTORY, device, device, this, device.description()).run(folder));
            List<Object> reasons = new ArrayList<Object>((List<?>) found.get("reasons"));
            int stopped = reasons.indexOf("cancelled");
            if (stopped < 0) {
                models.judge(folder, found);
            } else {
                reasons.set(stopped, cancelled);
                found.put("reasons", reasons);
            }
        } catch (BenchException error) {
            found.put("error", error.getMessage());
        } catch (IOException error) {
            found.put("error", error.toString());
        } catch (RuntimeException error) { // what a delegate throws belongs on the screen, too
            found.put("error", error.toString());
        } catch (OutOfMemoryError error) {
            found.put("error", "The model and its samples must fit in memory. Received: " + error.getMessage());
        }
        try {
            history.add(found);
        } catch (IOException error) {
            found.put("unsaved", error.toString());
        }
        return found;
    }

    @Override
    public void at(final String phase, final double share) {
        main.post(new Runnable() {
            @Override
            public void run() {
                if (screen != null) {
                    screen.at(phase, share);
                }
            }
        });
    }

    @Override
    public boolean cancelled() {
        return cancelled != null;
    }
}
