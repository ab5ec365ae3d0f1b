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
import org.json.JSONObject;

/** One run started on the screen, on a thread of its own. It continues when the screen is recreated, as by a rotation. */
final class Session implements LatencyRunner.Listener, Runnable {
    /** Shows a run. Called on the main thread. */
    interface Screen {
        void at(String phase, double share);

        void ended(JSONObject result);
    }

    /** Lock of the run in progress: two at once would disturb each other's latency. */
    static final Object TURN = new Object();

    private final Models models;
    private final History history;
    private final Device device;
    private final String model;
    private final int threads;
    private final String accelerator;
    final double sustainedSeconds;

    private final Handler main = new Handler(Looper.getMainLooper());
    private Screen screen; // used on the main thread only
    private JSONObject result; // used on the main thread only
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

    /** Sets the screen that shows it, or null. A screen that is set after the end is notified at once. */
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
        final JSONObject found;
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

    /** Returns the result, or one with {@code error} after a failure; saves either in the history. */
    private JSONObject measured() {
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
        } catch (RuntimeException error) { // errors of a delegate are shown, too
            found.put("error", error.toString());
        } catch (OutOfMemoryError error) {
            found.put("error", "The model and its samples do not fit in memory: " + error.getMessage());
        }
        try {
            history.add(found);
        } catch (IOException error) {
            found.put("unsaved", error.toString());
        }
        return new JSONObject(found);
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
