package dev.tfkd.bench.app;

import android.app.Activity;
import android.app.Instrumentation;
import android.os.Bundle;
import dev.tfkd.bench.BenchException;
import dev.tfkd.bench.BenchRun;
import dev.tfkd.bench.LatencyRunner;
import dev.tfkd.bench.LiteRTEngine;
import dev.tfkd.bench.RunFolder;
import java.io.File;
import java.io.IOException;
import java.util.Map;

/** Entry point for the host: {@code am instrument -w -r -e run_id ID dev.tfkd.bench.app/.BenchInstrumentation}. */
public final class BenchInstrumentation extends Instrumentation implements LatencyRunner.Listener {
    private static final int WRONG = 2;
    private String id;

    @Override
    public void onCreate(Bundle arguments) {
        super.onCreate(arguments);
        id = String.valueOf(arguments.getString("run_id"));
        start();
    }

    /** Runs on a thread of its own, as every instrumentation does. */
    @Override
    public void onStart() {
        super.onStart();
        Bundle answer = new Bundle();
        int code = Activity.RESULT_OK;
        try {
            Device device = new Device(getTargetContext());
            RunFolder folder = new RunFolder(new File(getTargetContext().getFilesDir(), "runs"), id);
            Map<String, Object> result =
                    new BenchRun(LiteRTEngine.FACTORY, device, device, this, device.description()).run(folder);
            answer.putString("run_id", id);
            answer.putString("valid", String.valueOf(result.get("valid")));
        } catch (BenchException error) {
            answer.putString("error", error.getMessage());
            code = WRONG;
        } catch (IOException error) {
            answer.putString("error", error.toString());
            code = WRONG;
        }
        finish(code, answer);
    }

    @Override
    public void at(String phase, double share) {
        Bundle status = new Bundle();
        status.putString("phase", phase);
        status.putString("percent", String.valueOf(Math.round(100 * share)));
        sendStatus(1, status);
    }

    @Override
    public boolean cancelled() {
        return false; // the host cancels by killing the process
    }
}
