package dev.tfkd.bench.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Build;
import android.os.Bundle;
import android.view.View;
import android.view.ViewGroup;
import android.view.WindowManager;
import android.widget.ArrayAdapter;
import android.widget.Button;
import android.widget.ProgressBar;
import android.widget.Spinner;
import android.widget.Switch;
import android.widget.TextView;
import dev.tfkd.bench.LiteRTEngine;
import java.util.ArrayList;
import java.util.List;
import org.json.JSONObject;

/** The only screen: device, settings, a run with progress and cancel, its result, earlier results. */
public final class MainActivity extends Activity implements Session.Screen, View.OnClickListener {
    /** Duration of a sustained run: long enough for thermal throttling. */
    static final double SUSTAINED_SECONDS = 600;
    private static final int ANDROID_8_1 = 27;

    private final List<String> models = new ArrayList<String>();
    private final List<String> accelerators = new ArrayList<String>();
    private Device device;
    private Models stored;
    private History history;
    private Session session; // null while nothing runs
    private List<JSONObject> past = new ArrayList<JSONObject>();
    private JSONObject shown;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        device = new Device(this);
        stored = new Models(this);
        history = new History(this);
        List<String> threads = new ArrayList<String>();
        for (int n = 1; n <= Runtime.getRuntime().availableProcessors(); n *= 2) {
            threads.add(String.valueOf(n));
        }
        choices(R.id.threads, threads);
        accelerators.add("cpu");
        if (LiteRTEngine.hasGpu()) {
            accelerators.add("gpu");
        }
        if (Build.VERSION.SDK_INT >= ANDROID_8_1) {
            accelerators.add("nnapi");
        }
        List<String> names = new ArrayList<String>();
        for (String one : accelerators) {
            names.add(getString(one.equals("cpu") ? R.string.cpu : one.equals("gpu") ? R.string.gpu : R.string.nnapi));
        }
        choices(R.id.accelerator, names);
        findViewById(R.id.run).setOnClickListener(this);
        findViewById(R.id.share).setOnClickListener(this);
        session = (Session) getLastNonConfigurationInstance();
    }

    /** Lists models that were pushed in the meantime and shows a run in progress. */
    @Override
    protected void onStart() {
        super.onStart();
        int before = ((Spinner) findViewById(R.id.model)).getSelectedItemPosition();
        String picked = before < 0 ? Models.BUNDLED : models.get(before);
        models.clear();
        models.addAll(stored.ids());
        List<String> names = new ArrayList<String>(models);
        names.set(0, getString(R.string.bundled));
        choices(R.id.model, names);
        ((Spinner) findViewById(R.id.model)).setSelection(Math.max(0, models.indexOf(picked)));
        showDevice();
        showHistory();
        if (!past.isEmpty()) {
            show(past.get(0));
        }
        if (session == null && past.isEmpty()) {
            start(); // first start: a self-test that compares this phone's outputs with the host's
        } else {
            showRunning();
        }
    }

    @Override
    protected void onStop() {
        if (session != null) {
            session.showOn(null);
            if (!isChangingConfigurations()) { // Android throttles apps that are not on the screen
                session.cancel(getString(R.string.left));
                session = null;
            }
        }
        super.onStop();
    }

    @Override
    public Object onRetainNonConfigurationInstance() {
        return session;
    }

    @Override
    public void onClick(View view) {
        if (view.getId() == R.id.share) {
            startActivity(Intent.createChooser(
                    new Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_TEXT, shown.toString()),
                    getString(R.string.share)));
        } else if (view.getTag() instanceof Integer) { // a row of the history
            show(past.get((Integer) view.getTag()));
            View card = findViewById(R.id.result_card);
            card.requestRectangleOnScreen(new android.graphics.Rect(0, 0, card.getWidth(), card.getHeight()));
        } else if (session != null) {
            session.cancel(getString(R.string.cancelled));
        } else {
            start();
        }
    }

    private void start() {
        boolean sustained = ((Switch) findViewById(R.id.sustained)).isChecked();
        session = new Session(stored, history, device, models.get(position(R.id.model)),
                Integer.parseInt(((Spinner) findViewById(R.id.threads)).getSelectedItem().toString()),
                accelerators.get(position(R.id.accelerator)), sustained ? SUSTAINED_SECONDS : 0);
        session.start();
        showRunning();
    }

    /** Shows that a run is in progress, or that none is. */
    private void showRunning() {
        boolean running = session != null;
        Button button = (Button) findViewById(R.id.run);
        button.setText(running ? R.string.cancel : R.string.run);
        button.setTextColor(getColor(running ? R.color.accent : R.color.on_accent));
        button.setBackgroundResource(running ? R.drawable.outlined : R.drawable.filled);
        findViewById(R.id.running).setVisibility(running ? View.VISIBLE : View.GONE);
        for (int id : new int[] {R.id.model, R.id.threads, R.id.accelerator, R.id.sustained}) {
            findViewById(id).setEnabled(!running);
        }
        if (running) {
            getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        } else {
            getWindow().clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        }
        if (device.canSustain()) {
            getWindow().setSustainedPerformanceMode(running && session.sustainedSeconds > 0);
        }
        if (running) {
            at("", 0);
            session.showOn(this);
        }
    }

    @Override
    public void at(String phase, double share) {
        int words = phase.equals("latency") ? R.string.timing : phase.equals("accuracy") ? R.string.answering
                : phase.equals("warm-up") ? R.string.warming : R.string.checking;
        text(R.id.phase, getString(words));
        ProgressBar bar = (ProgressBar) findViewById(R.id.progress);
        bar.setIndeterminate(words == R.string.checking || words == R.string.warming);
        bar.setProgress((int) (100 * share));
    }

    @Override
    public void ended(JSONObject result) {
        session = null;
        showRunning();
        showDevice();
        show(result);
        showHistory();
    }

    private void show(JSONObject result) {
        shown = result;
        new ResultCard(this).show(result);
        findViewById(R.id.share).setVisibility(View.VISIBLE);
    }

    private void showDevice() {
        text(R.id.device, device.name());
        ViewGroup rows = (ViewGroup) findViewById(R.id.device_rows);
        rows.removeAllViews();
        ResultCard.row(rows, getString(R.string.chip), Device.soc());
        ResultCard.row(rows, getString(R.string.abi), device.abis());
        ResultCard.row(rows, getString(R.string.cores), String.valueOf(Runtime.getRuntime().availableProcessors()));
        ResultCard.row(rows, getString(R.string.android), Build.VERSION.RELEASE);
        ResultCard.row(rows, getString(R.string.thermal), device.thermal());
    }

    private void showHistory() {
        past = history.results();
        ViewGroup rows = (ViewGroup) findViewById(R.id.history);
        rows.removeAllViews();
        findViewById(R.id.history_card).setVisibility(past.isEmpty() ? View.GONE : View.VISIBLE);
        for (int i = 0; i < past.size(); i++) {
            JSONObject result = past.get(i);
            View row = View.inflate(this, R.layout.past, null);
            ResultCard.Verdict verdict = ResultCard.Verdict.of(result);
            String median = ResultCard.time(ResultCard.object(result, "statistics").opt("p50_ns"));
            ((TextView) row.findViewById(R.id.label)).setText(ResultCard.setting(this, result));
            ((TextView) row.findViewById(R.id.value)).setText(median);
            TextView words = (TextView) row.findViewById(R.id.verdict_short);
            words.setText(getString(verdict.words) + "  ·  " + ResultCard.when(this, result));
            words.setTextColor(getColor(verdict.color));
            row.setTag(i);
            row.setOnClickListener(this);
            rows.addView(row);
        }
    }

    private int position(int spinner) {
        return ((Spinner) findViewById(spinner)).getSelectedItemPosition();
    }

    private void choices(int id, List<String> values) {
        ArrayAdapter<String> adapter = new ArrayAdapter<String>(this, R.layout.choice, values);
        adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
        ((Spinner) findViewById(id)).setAdapter(adapter);
    }

    private void text(int id, String words) {
        ((TextView) findViewById(id)).setText(words);
    }
}
