package dev.tfkd.bench.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertTrue;

import android.content.Intent;
import android.content.res.AssetManager;
import android.content.res.Configuration;
import android.graphics.Bitmap;
import android.graphics.Rect;
import android.os.Build;
import android.text.Layout;
import android.view.View;
import android.view.ViewGroup;
import android.view.WindowInsets;
import android.view.WindowManager;
import android.widget.Spinner;
import android.widget.Switch;
import android.widget.TextView;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.json.JSONObject;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.shadow.api.Shadow;
import org.robolectric.shadows.ShadowContextWrapper;
import org.robolectric.shadows.ShadowSystemClock;
import org.robolectric.util.ReflectionHelpers;

/** The screen under Android's framework, on the app's own LiteRT with the bundled student. */
@RunWith(RobolectricTestRunner.class)
@Config(shadows = RealClock.class)
public class MainActivityTest {
    private static final int SMALLEST_TARGET_DP = 48;

    @Before
    public void beginNow() {
        ShadowSystemClock.advanceBy(Duration.ofMillis(1795600000000L));
    }

    private static File files(String name) {
        return new File(RuntimeEnvironment.getApplication().getFilesDir(), name);
    }

    /** Saves a result, so that the app does not begin with its self-test. */
    private static void wasTested() throws Exception {
        Map<String, Object> earlier = new LinkedHashMap<>();
        earlier.put("when", System.currentTimeMillis());
        earlier.put("error", "an earlier run");
        new History(RuntimeEnvironment.getApplication()).add(earlier);
    }

    /** Copies the files of the bundled model to where tools/push_model.py would push them. */
    private static void push(String id) throws Exception {
        Path folder = Files.createDirectories(files("models/" + id).toPath());
        AssetManager assets = RuntimeEnvironment.getApplication().getAssets();
        for (String name : assets.list(Models.BUNDLED)) {
            Files.copy(assets.open(Models.BUNDLED + "/" + name), folder.resolve(name));
        }
    }

    private static boolean keptOn(Desk desk) {
        int flags = desk.screen().getWindow().getAttributes().flags;
        return (flags & WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON) != 0;
    }

    /** Starts a sustained run of ten minutes, which the test must end. */
    private static Desk sustained() throws Exception {
        wasTested();
        Desk desk = new Desk();
        ((Switch) desk.find(R.id.sustained)).setChecked(true);
        desk.find(R.id.run).performClick();
        return desk;
    }

    private static List<View> shown(View view) {
        List<View> found = new ArrayList<>();
        if (view.getVisibility() == View.VISIBLE) {
            found.add(view);
            for (int i = 0; view instanceof ViewGroup && i < ((ViewGroup) view).getChildCount(); i++) {
                found.addAll(shown(((ViewGroup) view).getChildAt(i)));
            }
        }
        return found;
    }

    @Test
    public void firstStartRunsASelfTestOffTheMainThreadAndTheNextShowsItsResult() throws Exception {
        Desk desk;
        Thread bench;
        synchronized (Session.TURN) { // the run waits until the assertions are done
            desk = new Desk();
            bench = Desk.bench();
            assertEquals("Cancel", desk.text(R.id.run));
            assertFalse(desk.find(R.id.model).isEnabled());
            assertEquals(View.VISIBLE, desk.find(R.id.running).getVisibility());
            assertTrue(keptOn(desk));
        }
        boolean seen = false;
        while (bench.isAlive()) {
            for (Map.Entry<Thread, StackTraceElement[]> thread : Thread.getAllStackTraces().entrySet()) {
                for (StackTraceElement frame : thread.getValue()) {
                    if (frame.getClassName().startsWith("org.tensorflow.lite.NativeInterpreterWrapper")) {
                        assertSame(bench, thread.getKey());
                        seen = true;
                    }
                }
            }
            Thread.sleep(5);
        }
        assertTrue("no inference was observed", seen);
        desk.finish();

        assertEquals("Valid, and agrees with the host", desk.text(R.id.verdict));
        assertEquals(View.GONE, desk.find(R.id.reason).getVisibility());
        assertTrue(desk.text(R.id.median), desk.text(R.id.median).matches("[0-9.,]+ (µs|ms)"));
        String figures = Desk.words(desk.find(R.id.figures));
        // LiteRT's kernels round differently from CPU to CPU: the bounds are those of Agreement
        Matcher agreement = Pattern.compile("(?s)p90\n.*Agreement\n(\\d+) of 256 classes as on the host; outputs differ by at "
                + "most (\\d+) steps?\nAccuracy\n9\\d\\.\\d % \\(2\\d\\d of 256\\)\nHottest\nnone\n").matcher(figures);
        assertTrue(figures, agreement.matches());
        assertTrue(figures, Integer.parseInt(agreement.group(1)) >= 0.98 * 256);
        assertTrue(figures, Integer.parseInt(agreement.group(2)) <= 8);
        assertTrue(desk.find(R.id.histogram).getContentDescription().toString().startsWith("Histogram of latencies from "));
        assertEquals("Run", desk.text(R.id.run));
        assertTrue(desk.find(R.id.model).isEnabled());
        assertEquals(View.GONE, desk.find(R.id.running).getVisibility());
        assertFalse(keptOn(desk));

        String median = desk.text(R.id.median);
        Desk next = new Desk();
        assertNull("no second self-test", Desk.bench());
        assertEquals(median, next.text(R.id.median));
        assertEquals("Valid, and agrees with the host", next.text(R.id.verdict));
        assertEquals(1, ((ViewGroup) next.find(R.id.history)).getChildCount());
        assertTrue(Desk.words(next.find(R.id.history)).startsWith("Bundled student, CPU, 1 thread\n" + median));

        next.find(R.id.share).performClick();
        Intent chooser = ((ShadowContextWrapper) Shadow.extract(next.screen())).getNextStartedActivity();
        assertEquals(Intent.ACTION_CHOOSER, chooser.getAction());
        Intent sent = chooser.getParcelableExtra(Intent.EXTRA_INTENT);
        assertEquals("application/json", sent.getType());
        String text = sent.getStringExtra(Intent.EXTRA_TEXT);
        JSONObject shared = new JSONObject(text);
        assertTrue(text.length() < 200000); // Android limits an intent to one megabyte
        assertEquals(true, shared.get("valid"));
        assertTrue(shared.getJSONArray("latencies_ns").length() <= History.MOST_LATENCIES);
        assertNotNull(shared.getJSONObject("device").get("model"));
    }

    @Test
    public void sustainedRunTakesTenMinutesUnlessCancelled() throws Exception {
        Desk desk = sustained();
        desk.find(R.id.run).performClick();
        desk.finish();
        String spec = new String(Files.readAllBytes(files("models/bundled/spec.json").toPath()));
        assertTrue(spec, spec.contains("\"sustained_seconds\":600"));
        assertEquals("Not valid", desk.text(R.id.verdict));
        assertTrue(desk.text(R.id.reason), desk.text(R.id.reason).startsWith("cancelled"));
        assertTrue(desk.text(R.id.setting), desk.text(R.id.setting).startsWith("Bundled student, CPU, 1 thread, sustained"));
        assertFalse(Desk.words(desk.find(R.id.figures)).contains("Agreement"));
        assertEquals("Run", desk.text(R.id.run));
    }

    @Test
    public void highThermalStatusMakesARunInvalid() throws Exception {
        wasTested();
        Desk desk = new Desk();
        desk.heat(2);
        desk.run();
        assertEquals("Not valid", desk.text(R.id.verdict));
        assertEquals("thermal status 2: the device slowed itself down; let it cool", desk.text(R.id.reason));
        assertTrue(Desk.words(desk.find(R.id.figures)).contains("Hottest\nmoderate"));
        assertTrue(Desk.words(desk.find(R.id.device_rows)).contains("Thermal state\nmoderate"));
        assertTrue(Desk.words(desk.find(R.id.history)).contains("Not valid"));
    }

    @Test
    public void recreatedScreenKeepsItsRunAndLeavingTheScreenCancelsIt() throws Exception {
        Desk desk = sustained();
        Thread bench = Desk.bench();
        Configuration dark = new Configuration(desk.screen().getResources().getConfiguration());
        dark.uiMode = dark.uiMode & ~Configuration.UI_MODE_NIGHT_MASK | Configuration.UI_MODE_NIGHT_YES;
        MainActivity before = desk.screen();
        desk.controller.configurationChange(dark);
        assertTrue(before != desk.screen());
        assertSame(bench, Desk.bench());
        assertEquals("Cancel", desk.text(R.id.run));

        desk.controller.pause().stop();
        desk.finish();
        desk.controller.restart().resume();
        assertEquals("Not valid", desk.text(R.id.verdict));
        assertTrue(desk.text(R.id.reason).startsWith("the app left the screen"));
    }

    @Test
    public void pushedModelCanBeChosenAndADamagedOneIsRefused() throws Exception {
        wasTested();
        push("my-model");
        Files.createDirectories(files("models/No_Id").toPath());
        Desk desk = new Desk();
        Spinner models = desk.find(R.id.model);
        assertEquals(2, models.getCount());
        models.setSelection(1);
        desk.run();
        assertEquals("Valid, and agrees with the host", desk.text(R.id.verdict));
        assertTrue(desk.text(R.id.setting).startsWith("my-model, CPU, 1 thread"));

        Path model = files("models/my-model/model.tflite").toPath();
        byte[] content = Files.readAllBytes(model);
        content[content.length / 2] ^= 1;
        Files.write(model, content);
        desk.run();
        assertEquals("Did not run", desk.text(R.id.verdict));
        assertTrue(desk.text(R.id.reason).startsWith("model.tflite: must be a file with SHA-256"));
        assertEquals(View.GONE, desk.find(R.id.histogram).getVisibility());

        Files.move(model, files("elsewhere").toPath());
        Files.createSymbolicLink(model, files("elsewhere").toPath());
        desk.run();
        assertEquals("model.tflite: must be a file in the run's folder, not a link. Received: no such file.", desk.text(R.id.reason));
        assertEquals(4, ((ViewGroup) desk.find(R.id.history)).getChildCount());

        ((ViewGroup) desk.find(R.id.history)).getChildAt(2).performClick(); // the first run
        assertEquals("Valid, and agrees with the host", desk.text(R.id.verdict));
    }

    @Test
    public void onlyAvailableAcceleratorsAreListed() throws Exception {
        wasTested();
        assertEquals(2, ((Spinner) new Desk().find(R.id.accelerator)).getCount()); // the desktop has no GPU library
        ReflectionHelpers.setStaticField(Build.VERSION.class, "SDK_INT", 26);
        Spinner old = new Desk().find(R.id.accelerator);
        assertEquals(1, old.getCount());
        assertEquals("CPU (XNNPACK)", old.getItemAtPosition(0));
    }

    @Test
    public void resultWithWrongTypesIsShownWithoutThem() throws Exception {
        wasTested();
        String odd = "{\"when\":1795600000001,\"valid\":1,\"model\":[],\"threads\":\"x\",\"sustained_seconds\":\"\",\"runs\":\"many\","
                + "\"statistics\":{\"p50_ns\":7,\"latency_trend\":\"\"},\"latencies_ns\":[\"a\"],\"agreement\":{\"worst\":\"\"},\"correct\":\"\","
                + "\"samples\":0,\"thermal\":[1,[2],[3,\"\"],[1,99]],\"per_minute\":[1,2],\"reasons\":{}}";
        Files.write(files("history/9995600000001.json").toPath(), odd.getBytes());
        Desk desk = new Desk();
        assertEquals("Not valid", desk.text(R.id.verdict));
        assertTrue(Desk.words(desk.find(R.id.figures)).contains("Hottest\nunknown"));
    }

    @Test
    public void extrasOfTheIntentAreIgnored() throws Exception {
        wasTested();
        Intent intent = new Intent().putExtra("run_id", "run-1").putExtra("model", "my-model").putExtra("start", true);
        Robolectric.buildActivity(MainActivity.class, intent).setup();
        assertNull(Desk.bench());
    }

    @Test
    public void touchTargetsHaveNamesAndAreLargeEnough() throws Exception {
        new Desk().finish();
        Desk desk = new Desk();
        float density = desk.screen().getResources().getDisplayMetrics().density;
        int touched = 0;
        for (View view : shown(desk.find(R.id.screen))) {
            if (view.isClickable() && !((View) view.getParent() instanceof Spinner)) {
                assertTrue(view + " is small", view.getHeight() >= SMALLEST_TARGET_DP * density);
                touched++;
            }
            if (view.isClickable() || view instanceof HistogramView) {
                assertTrue(view + " has no name", !Desk.words(view).trim().isEmpty() || view.getContentDescription() != null);
            }
            if (view instanceof Spinner) {
                boolean labelled = false;
                for (View other : shown(desk.find(R.id.screen))) {
                    labelled |= other.getLabelFor() == view.getId();
                }
                assertTrue(view + " has no label", labelled);
            }
        }
        assertTrue(touched >= 7); // three spinners, a switch, two buttons, a row of the history
        assertTrue(desk.find(R.id.progress).getContentDescription().length() > 0);
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, desk.find(R.id.verdict).getAccessibilityLiveRegion());
    }

    @Test
    public void systemBarsDoNotCoverTheScreen() throws Exception {
        wasTested();
        Desk desk = new Desk();
        View screen = desk.find(R.id.screen);
        screen.dispatchApplyWindowInsets(new WindowInsets(new Rect(0, 80, 0, 60)));
        assertEquals(80, screen.getPaddingTop());
        assertEquals(60, screen.getPaddingBottom());
    }

    @Test
    public void largeTextIsNotTruncated() throws Exception {
        RuntimeEnvironment.setFontScale(2);
        new Desk().finish();
        Desk desk = new Desk();
        desk.draw();
        int texts = 0;
        for (View view : shown(desk.find(R.id.screen))) {
            Layout layout = view instanceof TextView ? ((TextView) view).getLayout() : null;
            if (layout != null) {
                assertTrue(view.toString(), layout.getHeight() <= view.getHeight());
                assertTrue(view.toString(), layout.getWidth() <= view.getWidth());
                for (int line = 0; line < layout.getLineCount(); line++) {
                    assertEquals(view.toString(), 0, layout.getEllipsisCount(line));
                    int end = layout.getLineEnd(line);
                    String text = layout.getText().toString();
                    assertTrue("a word is torn: " + text, end == text.length() || !Character.isLetter(text.charAt(end))
                            || !Character.isLetter(text.charAt(end - 1)));
                }
                texts++;
            }
        }
        assertTrue(texts > 30);
    }

    @Test
    @Config(qualifiers = "+night")
    public void nightThemeIsDark() throws Exception {
        wasTested();
        assertLegible(true);
    }

    @Test
    public void dayThemeIsLight() throws Exception {
        wasTested();
        assertLegible(false);
    }

    /** Brightness of the background pixels, and contrast of each text on its background (WCAG 2, at least 4.5). */
    private static void assertLegible(boolean dark) {
        Desk desk = new Desk();
        MainActivity screen = desk.screen();
        Bitmap pixels = desk.draw();
        assertEquals(screen.getColor(R.color.ground), pixels.getPixel(2, pixels.getHeight() / 2));
        assertEquals(dark, luminance(pixels.getPixel(2, pixels.getHeight() / 2)) < 0.2);
        int[][] pairs = {
            {R.color.text, R.color.surface}, {R.color.faint, R.color.surface}, {R.color.text, R.color.ground},
            {R.color.faint, R.color.ground}, {R.color.accent, R.color.surface}, {R.color.on_accent, R.color.accent},
            {R.color.good, R.color.good_ground}, {R.color.warning, R.color.warning_ground},
            {R.color.bad, R.color.bad_ground}, {R.color.good, R.color.surface}, {R.color.warning, R.color.surface},
            {R.color.bad, R.color.surface},
        };
        for (int[] pair : pairs) {
            double one = luminance(screen.getColor(pair[0])) + 0.05;
            double other = luminance(screen.getColor(pair[1])) + 0.05;
            String names = screen.getResources().getResourceName(pair[0]) + " on " + screen.getResources().getResourceName(pair[1]);
            assertTrue(names, Math.max(one, other) / Math.min(one, other) >= 4.5);
        }
    }

    private static double luminance(int color) {
        double found = 0;
        double[] weights = {0.0722, 0.7152, 0.2126};
        for (int i = 0; i < weights.length; i++) {
            double part = (color >> 8 * i & 255) / 255.0;
            found += weights[i] * (part <= 0.03928 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4));
        }
        return found;
    }
}
