package dev.tfkd.bench.app;

import static org.junit.Assert.assertTrue;

import android.widget.Spinner;
import java.io.File;
import java.time.Duration;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowBuild;
import org.robolectric.shadows.ShadowSystemClock;

/** Draws the app's screens to the folder -Dtfkd.screens, for the documentation. */
@RunWith(RobolectricTestRunner.class)
@Config(shadows = RealClock.class)
public class ScreensTest {
    @Before
    public void setDeviceName() {
        ShadowSystemClock.advanceBy(Duration.ofMillis(1795600000000L));
        ShadowBuild.setManufacturer("Rendered");
        ShadowBuild.setModel("on a desktop");
        ShadowBuild.setHardware("x86-64");
        ShadowBuild.setSupportedAbis(new String[] {"x86_64"});
    }

    @Test
    public void light() throws Exception {
        Desk desk;
        synchronized (Session.TURN) { // the run waits until the screen is drawn
            desk = new Desk();
            desk.screen().at("latency", 0.6);
            desk.save("running");
        }
        desk.finish().scrollTo(R.id.result_card).save("result");
        assertTrue(new File(System.getProperty("tfkd.screens"), "result.png").isFile());
    }

    @Test
    @Config(qualifiers = "+night")
    public void darkWithAHistory() throws Exception {
        Desk desk = new Desk();
        desk.finish();
        Spinner threads = desk.find(R.id.threads);
        threads.setSelection(threads.getCount() - 1);
        desk.run();
        desk.heat(3);
        desk.run();
        desk.scrollTo(R.id.result_card).save("not_valid_dark");
        desk.scrollTo(R.id.history_card).save("history_dark");
    }

    @Test
    public void largeText() throws Exception {
        RuntimeEnvironment.setFontScale(2);
        Desk desk = new Desk();
        desk.finish().scrollTo(R.id.result_card).save("large");
    }
}
