package dev.tfkd.bench.app;

import android.os.SystemClock;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.shadows.ShadowPausedSystemClock;

/** The clock that a run is timed with goes on; Robolectric's stands still between tasks of the main thread. */
@Implements(value = SystemClock.class, isInAndroidSdk = true)
public class RealClock extends ShadowPausedSystemClock {
    @Implementation
    protected static long elapsedRealtimeNanos() {
        return System.nanoTime();
    }
}
