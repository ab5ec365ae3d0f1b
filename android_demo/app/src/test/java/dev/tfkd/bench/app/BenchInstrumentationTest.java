package dev.tfkd.bench.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.app.Instrumentation;
import android.content.Context;
import android.os.Bundle;
import dev.tfkd.bench.RunFolder;
import java.io.File;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.json.JSONObject;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.shadows.ShadowInstrumentation;
import org.robolectric.util.ReflectionHelpers;

/** The entry point for the host, called as by `am instrument`. */
@RunWith(RobolectricTestRunner.class)
@Config(shadows = {RealClock.class, BenchInstrumentationTest.Shell.class})
public class BenchInstrumentationTest {
    private final Context app = RuntimeEnvironment.getApplication();
    private final File runs = new File(app.getFilesDir(), "runs");

    /** Records what the shell would print; Android's own part runs in a system process. */
    @Implements(Instrumentation.class)
    public static class Shell extends ShadowInstrumentation {
        static final List<Bundle> STATUS = new ArrayList<>();
        static Bundle result;
        static int code;

        @Implementation
        protected void start() {}

        @Implementation
        protected void sendStatus(int status, Bundle values) {
            STATUS.add(values);
        }

        @Implementation
        protected void finish(int status, Bundle values) {
            code = status;
            result = values;
        }
    }

    private static void instrument(String id) {
        BenchInstrumentation entry = new BenchInstrumentation();
        ReflectionHelpers.setField(Instrumentation.class, entry, "mAppContext", RuntimeEnvironment.getApplication());
        Bundle arguments = new Bundle();
        if (id != null) {
            arguments.putString("run_id", id);
        }
        Shell.STATUS.clear();
        Shell.result = null;
        entry.onCreate(arguments);
        entry.onStart();
    }

    /** A run as the host pushes it: the bundled model's files under another id. */
    private File push(String id) throws Exception {
        RunFolder prepared = new Models(app).prepare(Models.BUNDLED, 1, "cpu", 0);
        File folder = new File(runs, id);
        assertTrue(folder.mkdirs());
        for (String name : new String[] {"model.tflite", "input_0.npy"}) {
            Files.copy(prepared.output(name).toPath(), new File(folder, name).toPath());
        }
        String spec = prepared.text("spec.json").replace("\"id\":\"bundled\"", "\"id\":\"" + id + "\"");
        Files.write(new File(folder, "spec.json").toPath(), spec.getBytes());
        return folder;
    }

    @Test
    public void runReportsItsPhasesAndWritesItsResult() throws Exception {
        File folder = push("run-1");
        instrument("run-1");
        assertEquals(String.valueOf(Shell.result), Activity.RESULT_OK, Shell.code);
        assertEquals("run-1", Shell.result.getString("run_id"));
        assertEquals("true", Shell.result.getString("valid"));
        assertEquals("checking files", Shell.STATUS.get(0).getString("phase"));
        assertEquals("accuracy", Shell.STATUS.get(Shell.STATUS.size() - 1).getString("phase"));
        JSONObject spec = new JSONObject(new String(Files.readAllBytes(new File(folder, "spec.json").toPath())));
        JSONObject result = new JSONObject(new String(Files.readAllBytes(new File(folder, "result.json").toPath())));
        assertEquals(spec.get("nonce"), result.get("nonce"));
        assertEquals("2.16.1", result.getJSONObject("engine").get("version"));
        assertTrue(new File(folder, "output_0.npy").isFile());
    }

    @Test
    public void idsOutsideOfTheRunsFolderAreRefused() throws Exception {
        File outside = new File(app.getFilesDir(), "outside");
        assertTrue(push("run-1").renameTo(outside));
        Files.createSymbolicLink(new File(runs, "link").toPath(), outside.toPath());
        for (String id : new String[] {"../outside", outside.getPath(), "link", "Run-1", "", "missing", null}) {
            instrument(id);
            assertEquals(2, Shell.code);
            assertTrue(id + ": " + Shell.result, Shell.result.getString("error").startsWith("run "));
        }
        assertFalse(new File(outside, "result.json").exists());
    }

    @Test
    public void changedAndLinkedFilesAreRefused() throws Exception {
        File folder = push("run-1");
        File input = new File(folder, "input_0.npy");
        byte[] content = Files.readAllBytes(input.toPath());
        content[content.length - 1] ^= 1;
        Files.write(input.toPath(), content);
        instrument("run-1");
        assertEquals(2, Shell.code);
        assertTrue(Shell.result.getString("error").startsWith("input_0.npy: must be a file with SHA-256"));

        File spec = new File(folder, "spec.json");
        File moved = new File(app.getFilesDir(), "moved.json");
        assertTrue(spec.renameTo(moved));
        Files.createSymbolicLink(spec.toPath(), moved.toPath());
        instrument("run-1");
        assertEquals("spec.json: must be a file in the run's folder, not a link. Received: no such file.", Shell.result.getString("error"));
        assertFalse(new File(folder, "result.json").exists());
    }
}
