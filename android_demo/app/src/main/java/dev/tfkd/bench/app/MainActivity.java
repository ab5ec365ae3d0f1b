package dev.tfkd.bench.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Build;
import android.os.Bundle;
import android.os.PowerManager;
import android.view.View;
import android.view.WindowManager;
import android.widget.ArrayAdapter;
import android.widget.Button;
import android.widget.ProgressBar;
import android.widget.Spinner;
import android.widget.TextView;
import dev.tfkd.bench.BenchRun;
import dev.tfkd.bench.Json;
import dev.tfkd.bench.LatencyRunner;
import dev.tfkd.bench.LiteRTEngine;
import dev.tfkd.bench.RunFolder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The one screen: the device, the choice, a run with progress and cancel, its result, earlier results. */
public final class MainActivity extends Activity implements LatencyRunner.Listener, View.OnClickListener {
    private Device device;
    private Runs runs;
    private volatile boolean running;
    private volatile boolean cancelled;
    private String shared;
    private final StringBuilder past = new StringBuilder();

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        device = new Device(this);
        runs = new Runs(this);
        text(R.id.device).setText(device.card());
        List<String> models = new ArrayList<String>();
        models.add(getString(R.string.bundled));
        models.addAll(runs.pushed());
        choices(R.id.model, models);
        List<String> threads = new ArrayList<String>();
        for (int n = 1; n <= Runtime.getRuntime().availableProcessors(); n *= 2) {
            threads.add(String.valueOf(n));
        }
        choices(R.id.threads, threads);
        List<String> accelerators = new ArrayList<String>();
        accelerators.add("cpu");
        if (LiteRTEngine.hasGpu()) {
            accelerators.add("gpu");
        }
        if (Build.VERSION.SDK_INT >= 27) {
            accelerators.add("nnapi");
        }
        choices(R.id.accelerator, accelerators);
        findViewById(R.id.run).setOnClickListener(this);
        findViewById(R.id.share).setOnClickListener(this);
        if (!getPreferences(MODE_PRIVATE).getBoolean("tested", false)) {
            start(); // at the first start: does this phone compute what the host computed?
        }
    }

    @Override
    protected void onDestroy() {
        cancelled = true;
        super.onDestroy();
    }

    @Override
    public void onClick(View view) {
        if (view.getId() == R.id.share) {
            startActivity(Intent.createChooser(
                    new Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_TEXT, shared), null));
        } else if (running) {
            cancelled = true;
        } else {
            start();
        }
    }

    private void start() {
        running = true;
        cancelled = false;
        ((Button) findViewById(R.id.run)).setText(R.string.cancel);
        getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        if (((PowerManager) getSystemService(POWER_SERVICE)).isSustainedPerformanceModeSupported()) {
            getWindow().setSustainedPerformanceMode(true);
        }
        final boolean bundled = ((Spinner) findViewById(R.id.model)).getSelectedItemPosition() == 0;
        final String model = chosen(R.id.model);
        final int threads = Integer.parseInt(chosen(R.id.threads));
        final String accelerator = chosen(R.id.accelerator);
        new Thread("bench") {
            @Override
            public void run() {
                measure(bundled, model, threads, accelerator);
            }
        }.start();
    }

    /** On a thread of its own. */
    private void measure(boolean bundled, String model, int threads, String accelerator) {
        String said;
        long[] nanos = null;
        String json = null;
        try {
            RunFolder folder = bundled ? runs.selfTest(threads, accelerator) : new RunFolder(runs.root, model);
            Map<String, Object> result =
                    new BenchRun(LiteRTEngine.FACTORY, device, device, this, device.description()).run(folder);
            nanos = (long[]) result.get("latencies_ns");
            said = summary(result, bundled && !cancelled ? runs.agreement(folder) : -1);
            json = Json.write(result);
        } catch (Exception error) { // whatever went wrong belongs on the screen
            said = String.valueOf(error.getMessage());
        }
        final String message = said;
        final long[] latencies = nanos;
        final String result = json;
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                done(message, latencies, result);
            }
        });
    }

    private static String summary(Map<String, Object> result, double agreement) {
        Map<?, ?> figures = (Map<?, ?>) result.get("statistics");
        StringBuilder text = new StringBuilder();
        if (!Boolean.TRUE.equals(result.get("valid"))) {
            text.append("NOT VALID: ").append(result.get("reasons")).append('\n');
        }
        if (figures.get("p50_ns") != null) {
            text.append(String.format("p50 %.3f ms, p90 %.3f ms over %d runs", (Long) figures.get("p50_ns") / 1e6,
                    (Long) figures.get("p90_ns") / 1e6, (Long) result.get("runs")));
        }
        if (agreement >= 0) {
            text.append(String.format("\n%.1f %% of the golden samples bit for bit", 100 * agreement));
        }
        return text.toString();
    }

    private void done(String message, long[] nanos, String json) {
        running = false;
        getWindow().clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        getWindow().setSustainedPerformanceMode(false);
        ((Button) findViewById(R.id.run)).setText(R.string.run);
        text(R.id.phase).setText("");
        text(R.id.result).setText(message);
        text(R.id.device).setText(device.card());
        if (nanos != null && nanos.length > 0) {
            ((HistogramView) findViewById(R.id.histogram)).show(nanos);
        }
        if (json != null) {
            shared = json;
            findViewById(R.id.share).setEnabled(true);
            getPreferences(MODE_PRIVATE).edit().putBoolean("tested", true).apply();
        }
        past.insert(0, chosen(R.id.model) + ", " + chosen(R.id.threads) + " threads, " + chosen(R.id.accelerator) + ": "
                + message + "\n\n");
        text(R.id.history).setText(past);
    }

    @Override
    public void at(final String phase, final double share) {
        runOnUiThread(new Runnable() {
            @Override
            public void run() {
                text(R.id.phase).setText(phase);
                ((ProgressBar) findViewById(R.id.progress)).setProgress((int) (100 * share));
            }
        });
    }

    @Override
    public boolean cancelled() {
        return cancelled;
    }

    private TextView text(int id) {
        return (TextView) findViewById(id);
    }

    private void choices(int id, List<String> values) {
        ((Spinner) findViewById(id)).setAdapter(
                new ArrayAdapter<String>(this, android.R.layout.simple_spinner_dropdown_item, values));
    }

    private String chosen(int id) {
        return ((Spinner) findViewById(id)).getSelectedItem().toString();
    }
}
