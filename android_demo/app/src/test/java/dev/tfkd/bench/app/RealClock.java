package dev.tfkd.bench.app;

import android.os.SystemClock;
import org.robolectric.annotation.Implementation;
import org.robolectric.annotation.Implements;
import org.robolectric.shadows.ShadowPausedSystemClock;

/** A clock that advances in real time, for latencies; Robolectric's stops between tasks of the main thread. */
@Implements(value = SystemClock.class, isInAndroidSdk = true)
public class RealClock extends ShadowPausedSystemClock {
    @Implementation
    protected static long elapsedRealtimeNanos() {
        return System.nanoTime();
    }
}
