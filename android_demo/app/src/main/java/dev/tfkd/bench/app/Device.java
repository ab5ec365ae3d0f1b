package dev.tfkd.bench.app;

import android.content.Context;
import android.os.Build;
import android.os.PowerManager;
import android.os.SystemClock;
import dev.tfkd.bench.LatencyRunner;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** This phone: what it is, its clock, and how hot it says to be. */
final class Device implements LatencyRunner.Clock, LatencyRunner.ThermalProbe {
    private static final int ANDROID_10 = 29;
    private static final String[] THERMAL = {"none", "light", "moderate", "severe", "critical", "emergency", "shutdown"};

    private final PowerManager power;

    Device(Context context) {
        power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    }

    @Override
    public long nanos() {
        return SystemClock.elapsedRealtimeNanos();
    }

    /** By reflection: the app is compiled against Android 8, which has no thermal status. */
    @Override
    public int status() {
        if (Build.VERSION.SDK_INT < ANDROID_10) {
            return -1;
        }
        try {
            return (Integer) PowerManager.class.getMethod("getCurrentThermalStatus").invoke(power);
        } catch (ReflectiveOperationException error) {
            return -1; // unknown, and said so
        }
    }

    String thermal() {
        int status = status();
        return status < 0 || status >= THERMAL.length ? "unknown" : THERMAL[status];
    }

    /** For the report; an unknown is left out. */
    Map<String, Object> description() {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        found.put("manufacturer", Build.MANUFACTURER);
        found.put("model", Build.MODEL);
        found.put("soc", soc());
        found.put("abi", Build.SUPPORTED_ABIS[0]);
        found.put("cores", (long) Runtime.getRuntime().availableProcessors());
        found.put("android", Build.VERSION.RELEASE);
        found.put("sdk", (long) Build.VERSION.SDK_INT);
        found.put("build", Build.FINGERPRINT);
        found.put("power_save", power.isPowerSaveMode());
        found.put("sustained_mode", power.isSustainedPerformanceModeSupported());
        return found;
    }

    String card() {
        return Build.MANUFACTURER + " " + Build.MODEL + "\n" + soc() + ", " + Arrays.toString(Build.SUPPORTED_ABIS) + "\n"
                + Runtime.getRuntime().availableProcessors() + " cores, Android " + Build.VERSION.RELEASE
                + "\nThermal state: " + thermal();
    }

    private static String soc() {
        if (Build.VERSION.SDK_INT >= 31) {
            try {
                return Build.class.getField("SOC_MODEL").get(null).toString();
            } catch (ReflectiveOperationException error) {
                return Build.HARDWARE;
            }
        }
        return Build.HARDWARE;
    }
}
