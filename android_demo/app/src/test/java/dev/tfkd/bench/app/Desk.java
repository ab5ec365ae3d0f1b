package dev.tfkd.bench.app;

import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.os.PowerManager;
import android.view.View;
import android.widget.TextView;
import java.io.File;
import java.io.FileOutputStream;
import java.time.Duration;
import org.robolectric.Robolectric;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.shadow.api.Shadow;
import org.robolectric.shadows.ShadowLooper;
import org.robolectric.shadows.ShadowPowerManager;
import org.robolectric.shadows.ShadowSystemClock;

/** Drives the app's screen on the desktop. */
final class Desk {
    final ActivityController<MainActivity> controller;

    /** Opens the app, one minute of simulated time later. */
    Desk() {
        ShadowSystemClock.advanceBy(Duration.ofMinutes(1));
        controller = Robolectric.buildActivity(MainActivity.class).setup();
    }

    MainActivity screen() {
        return controller.get();
    }

    <V extends View> V find(int id) {
        return screen().findViewById(id);
    }

    String text(int id) {
        return ((TextView) find(id)).getText().toString();
    }

    /** Text of a view and of all its children. */
    static String words(View view) {
        StringBuilder found = new StringBuilder();
        if (view.getVisibility() == View.VISIBLE && view instanceof TextView) {
            found.append(((TextView) view).getText()).append('\n');
        }
        if (view.getVisibility() == View.VISIBLE && view instanceof android.view.ViewGroup) {
            for (int i = 0; i < ((android.view.ViewGroup) view).getChildCount(); i++) {
                found.append(words(((android.view.ViewGroup) view).getChildAt(i)));
            }
        }
        return found.toString();
    }

    static Thread bench() {
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            if (thread.getName().equals("bench")) {
                return thread;
            }
        }
        return null;
    }

    /** Waits until the run in progress has ended and the screen shows it. */
    Desk finish() throws InterruptedException {
        Thread thread = bench();
        if (thread != null) {
            thread.join(60000);
        }
        ShadowLooper.idleMainLooper();
        return this;
    }

    /** Runs again, one minute of simulated time later. */
    Desk run() throws InterruptedException {
        ShadowSystemClock.advanceBy(Duration.ofMinutes(1));
        find(R.id.run).performClick();
        return finish();
    }

    /** Sets Android's thermal status, 0 to 6. */
    void heat(int status) {
        ((ShadowPowerManager) Shadow.extract(screen().getSystemService(PowerManager.class))).setCurrentThermalStatus(status);
    }

    /** Draws the screen with Android's Skia. */
    Bitmap draw() {
        ShadowLooper.idleMainLooper();
        View root = screen().getWindow().getDecorView();
        Bitmap bitmap = Bitmap.createBitmap(root.getWidth(), root.getHeight(), Bitmap.Config.ARGB_8888);
        root.draw(new Canvas(bitmap));
        return bitmap;
    }

    void save(String name) throws Exception {
        File file = new File(System.getProperty("tfkd.screens"), name + ".png");
        file.getParentFile().mkdirs();
        try (FileOutputStream out = new FileOutputStream(file)) {
            draw().compress(Bitmap.CompressFormat.PNG, 100, out);
        }
    }

    /** Lays out the screen and scrolls a view to the top. */
    Desk scrollTo(int id) {
        ShadowLooper.idleMainLooper();
        View scroll = find(R.id.screen);
        int top = 0;
        for (View view = find(id); view != scroll; view = (View) view.getParent()) {
            top += view.getTop();
        }
        scroll.scrollTo(0, top - 12);
        return this;
    }
}
