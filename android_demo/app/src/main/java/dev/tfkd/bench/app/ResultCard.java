package dev.tfkd.bench.app;

import android.app.Activity;
import android.content.Context;
import android.text.format.DateUtils;
import android.view.View;
import android.view.ViewGroup;
import android.widget.LinearLayout;
import android.widget.TextView;
import dev.tfkd.bench.Json;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.json.JSONArray;
import org.json.JSONObject;

/** Shows a result: verdict, then figures. */
final class ResultCard {
    private static final double MICRO = 1e3;
    private static final double MILLI = 1e6;
    private static final float LARGE_TEXT = 1.3f;

    /** Verdict on a result, and its text, colour and icon. */
    enum Verdict {
        GOOD(R.string.good, R.color.good, R.drawable.good),
        VALID(R.string.valid, R.color.good, R.drawable.good),
        DIFFERS(R.string.differs, R.color.bad, R.drawable.bad),
        NOT_VALID(R.string.not_valid, R.color.warning, R.drawable.warning),
        FAILED(R.string.failed, R.color.bad, R.drawable.bad);

        final int words;
        final int color;
        final int background;

        Verdict(int words, int color, int background) {
            this.words = words;
            this.color = color;
            this.background = background;
        }

        static Verdict of(JSONObject result) {
            if (!result.isNull("error")) {
                return FAILED;
            }
            if (!result.optBoolean("valid")) {
                return NOT_VALID;
            }
            if (result.optJSONObject("agreement") == null) {
                return VALID;
            }
            return object(result, "agreement").optBoolean("agrees") ? GOOD : DIFFERS;
        }
    }

    private final Activity screen;

    ResultCard(Activity screen) {
        this.screen = screen;
    }

    void show(JSONObject result) {
        screen.findViewById(R.id.none).setVisibility(View.GONE);
        screen.findViewById(R.id.result).setVisibility(View.VISIBLE);
        Verdict verdict = Verdict.of(result);
        TextView banner = (TextView) screen.findViewById(R.id.verdict);
        banner.setText(verdict.words);
        banner.setTextColor(screen.getColor(verdict.color));
        banner.setBackgroundResource(verdict.background);
        text(R.id.reason, reason(result));
        text(R.id.setting, setting(screen, result) + "\n" + when(screen, result));
        JSONObject figures = object(result, "statistics");
        text(R.id.median, time(figures.opt("p50_ns")));
        ((TextView) screen.findViewById(R.id.median))
                .setTextColor(screen.getColor(verdict == Verdict.NOT_VALID ? R.color.faint : R.color.text));
        boolean timed = Json.isWhole(figures.opt("p50_ns"));
        text(R.id.caption, timed ? screen.getString(R.string.median, count(result.opt("runs"))) : "");
        rows(result, figures);
        HistogramView histogram = (HistogramView) screen.findViewById(R.id.histogram);
        long[] latencies = History.latencies(result);
        histogram.setVisibility(latencies.length > 0 ? View.VISIBLE : View.GONE);
        if (latencies.length > 0) {
            histogram.show(latencies, figures);
        }
    }

    private void rows(JSONObject result, JSONObject figures) {
        ViewGroup figuresView = (ViewGroup) screen.findViewById(R.id.figures);
        figuresView.removeAllViews();
        for (String percentile : new String[] {"p90", "p95", "p99"}) {
            row(figuresView, percentile, time(figures.opt(percentile + "_ns")));
        }
        if (figures.opt("latency_trend") instanceof Number) {
            row(figuresView, screen.getString(R.string.latency_trend),
                    screen.getString(R.string.times, figures.optDouble("latency_trend")));
        }
        List<String> minutes = new ArrayList<String>();
        JSONArray perMinute = array(result, "per_minute");
        for (int i = 0; i < perMinute.length(); i++) {
            JSONObject minute = perMinute.optJSONObject(i);
            minutes.add(minute == null ? "" : time(minute.opt("p50_ns")));
        }
        if (minutes.size() > 1) {
            row(figuresView, screen.getString(R.string.minutes), join(minutes));
        }
        JSONObject agreement = object(result, "agreement");
        if (agreement.length() > 0) {
            row(figuresView, screen.getString(R.string.agreement), screen.getString(R.string.agrees,
                    agreement.opt("same_class"), agreement.opt("samples"), apart(agreement)));
        }
        if (Json.isWhole(result.opt("correct")) && Json.isWhole(result.opt("samples"))) {
            double share = 100.0 * result.optLong("correct") / Math.max(1, result.optLong("samples"));
            row(figuresView, screen.getString(R.string.accuracy),
                    screen.getString(R.string.correct, share, result.opt("correct"), result.opt("samples")));
        }
        long hottest = -1;
        JSONArray thermal = array(result, "thermal");
        for (int i = 0; i < thermal.length(); i++) {
            JSONArray one = thermal.optJSONArray(i);
            hottest = one == null ? hottest : Math.max(hottest, one.optLong(1, -1));
        }
        if (thermal.length() > 0) {
            row(figuresView, screen.getString(R.string.hottest), Device.thermal(hottest));
        }
    }

    private static String count(Object value) {
        return Json.isWhole(value) ? String.format("%,d", value) : String.valueOf(value);
    }

    private String apart(JSONObject agreement) {
        double worst = agreement.optDouble("worst"); // NaN if it is not a number
        return "steps".equals(agreement.opt("unit"))
                ? screen.getResources().getQuantityString(R.plurals.steps, (int) worst, (int) worst)
                : String.format("%.3g", worst);
    }

    /** Adds a label and its value, stacked if the text is large; nothing if the value is empty. */
    static void row(ViewGroup into, String label, String value) {
        if (value.isEmpty()) {
            return;
        }
        LinearLayout row = (LinearLayout) View.inflate(into.getContext(), R.layout.row, null);
        ((TextView) row.findViewById(R.id.label)).setText(label);
        ((TextView) row.findViewById(R.id.value)).setText(value);
        if (into.getResources().getConfiguration().fontScale > LARGE_TEXT) {
            row.setOrientation(LinearLayout.VERTICAL);
            for (int i = 0; i < row.getChildCount(); i++) {
                row.getChildAt(i).setLayoutParams(new LinearLayout.LayoutParams(
                        ViewGroup.LayoutParams.MATCH_PARENT, ViewGroup.LayoutParams.WRAP_CONTENT));
            }
        }
        into.addView(row);
    }

    /** A latency in µs or ms; empty if the value is not one. */
    static String time(Object nanos) {
        if (!Json.isWhole(nanos)) {
            return "";
        }
        double value = ((Number) nanos).doubleValue();
        return value < MILLI ? String.format("%.1f µs", value / MICRO) : String.format("%.2f ms", value / MILLI);
    }

    /** Model, threads, accelerator. */
    static String setting(Context context, JSONObject result) {
        String model = String.valueOf(result.opt("model"));
        boolean sustained = result.optDouble("sustained_seconds") > 0;
        int threads = result.optInt("threads", 1);
        return context.getResources().getQuantityString(R.plurals.setting, threads, threads,
                model.equals(Models.BUNDLED) ? context.getString(R.string.bundled) : model,
                String.valueOf(result.opt("accelerator")).toUpperCase(Locale.ROOT))
                + (sustained ? ", " + context.getString(R.string.sustained_short) : "");
    }

    static String when(Context context, JSONObject result) {
        return DateUtils.formatDateTime(context, result.optLong("when"),
                DateUtils.FORMAT_SHOW_DATE | DateUtils.FORMAT_SHOW_TIME | DateUtils.FORMAT_ABBREV_MONTH);
    }

    private static String reason(JSONObject result) {
        if (!result.isNull("error")) {
            return String.valueOf(result.opt("error"));
        }
        List<String> reasons = new ArrayList<String>();
        JSONArray found = array(result, "reasons");
        for (int i = 0; i < found.length(); i++) {
            reasons.add(String.valueOf(found.opt(i)));
        }
        if (!result.isNull("unsaved")) {
            reasons.add("not kept in the history: " + result.opt("unsaved"));
        }
        return join(reasons);
    }

    private static String join(List<String> words) {
        StringBuilder joined = new StringBuilder();
        for (String word : words) {
            joined.append(joined.length() == 0 ? "" : ", ").append(word);
        }
        return joined.toString();
    }

    /** The object of a key; an empty one if there is none. */
    static JSONObject object(JSONObject from, String key) {
        JSONObject found = from.optJSONObject(key);
        return found == null ? new JSONObject() : found;
    }

    private static JSONArray array(JSONObject from, String key) {
        JSONArray found = from.optJSONArray(key);
        return found == null ? new JSONArray() : found;
    }

    private void text(int id, String words) {
        TextView view = (TextView) screen.findViewById(id);
        view.setText(words);
        view.setVisibility(words.isEmpty() ? View.GONE : View.VISIBLE);
    }
}
