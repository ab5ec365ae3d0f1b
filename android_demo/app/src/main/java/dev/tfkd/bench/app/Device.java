package dev.tfkd.bench.app;

import android.content.Context;
import android.os.Build;
import android.os.PowerManager;
import android.os.SystemClock;
import dev.tfkd.bench.LatencyRunner;
import java.util.LinkedHashMap;
import java.util.Map;

/** Description, clock and thermal status of this device. */
final class Device implements LatencyRunner.Clock, LatencyRunner.ThermalProbe {
    private static final int ANDROID_10 = 29;
    private static final int ANDROID_12 = 31;
    private static final String[] THERMAL = {"none", "light", "moderate", "severe", "critical", "emergency", "shutdown"};

    private final PowerManager power;

    Device(Context context) {
        power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
    }

    @Override
    public long nanos() {
        return SystemClock.elapsedRealtimeNanos();
    }

    /** Thermal status, by reflection: the app is compiled against Android 8, which lacks it. */
    @Override
    public int status() {
        if (Build.VERSION.SDK_INT < ANDROID_10) {
            return -1;
        }
        try {
            return (Integer) PowerManager.class.getMethod("getCurrentThermalStatus").invoke(power);
        } catch (ReflectiveOperationException error) {
            return -1; // unknown
        }
    }

    String thermal() {
        return thermal(status());
    }

    static String thermal(long status) {
        return status < 0 || status >= THERMAL.length ? "unknown" : THERMAL[(int) status];
    }

    /** Description for the result. Unknown values are omitted. */
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

    String name() {
        return Build.MODEL.startsWith(Build.MANUFACTURER) ? Build.MODEL : Build.MANUFACTURER + " " + Build.MODEL;
    }

    String abis() {
        StringBuilder found = new StringBuilder();
        for (String abi : Build.SUPPORTED_ABIS) {
            found.append(found.length() == 0 ? "" : ", ").append(abi);
        }
        return found.toString();
    }

    boolean canSustain() {
        return power.isSustainedPerformanceModeSupported();
    }

    /** Name of the chip; of the board if Android does not provide it. */
    static String soc() {
        if (Build.VERSION.SDK_INT >= ANDROID_12) {
            try {
                String found = Build.class.getField("SOC_MODEL").get(null).toString();
                return found.equals(Build.UNKNOWN) ? Build.HARDWARE : found;
            } catch (ReflectiveOperationException error) {
                return Build.HARDWARE;
            }
        }
        return Build.HARDWARE;
    }
}
