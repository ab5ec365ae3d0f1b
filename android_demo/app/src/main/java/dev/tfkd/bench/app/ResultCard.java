package dev.tfkd.bench.app;

import android.app.Activity;
import android.content.Context;
import android.text.format.DateUtils;
import android.view.View;
import android.view.ViewGroup;
import android.widget.LinearLayout;
import android.widget.TextView;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;

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

        static Verdict of(Map<String, Object> result) {
            if (result.get("error") != null) {
                return FAILED;
            }
            if (!Boolean.TRUE.equals(result.get("valid"))) {
                return NOT_VALID;
            }
            if (!(result.get("agreement") instanceof Map)) {
                return VALID;
            }
            return Boolean.TRUE.equals(((Map<?, ?>) result.get("agreement")).get("agrees")) ? GOOD : DIFFERS;
        }
    }

    private final Activity screen;

    ResultCard(Activity screen) {
        this.screen = screen;
    }

    void show(Map<String, Object> result) {
        screen.findViewById(R.id.none).setVisibility(View.GONE);
        screen.findViewById(R.id.result).setVisibility(View.VISIBLE);
        Verdict verdict = Verdict.of(result);
        TextView banner = (TextView) screen.findViewById(R.id.verdict);
        banner.setText(verdict.words);
        banner.setTextColor(screen.getColor(verdict.color));
        banner.setBackgroundResource(verdict.background);
        text(R.id.reason, reason(result));
        text(R.id.setting, setting(screen, result) + "\n" + when(screen, result));
        Map<?, ?> figures = map(result.get("statistics"));
        text(R.id.median, time(figures.get("p50_ns")));
        ((TextView) screen.findViewById(R.id.median))
                .setTextColor(screen.getColor(verdict == Verdict.NOT_VALID ? R.color.faint : R.color.text));
        boolean timed = figures.get("p50_ns") instanceof Long;
        text(R.id.caption, timed ? screen.getString(R.string.median, count(result.get("runs"))) : "");
        rows(result, figures);
        HistogramView histogram = (HistogramView) screen.findViewById(R.id.histogram);
        long[] latencies = History.latencies(result);
        histogram.setVisibility(latencies.length > 0 ? View.VISIBLE : View.GONE);
        if (latencies.length > 0) {
            histogram.show(latencies, figures);
        }
    }

    private void rows(Map<String, Object> result, Map<?, ?> figures) {
        ViewGroup figuresView = (ViewGroup) screen.findViewById(R.id.figures);
        figuresView.removeAllViews();
        for (String percentile : new String[] {"p90", "p95", "p99"}) {
            row(figuresView, percentile, time(figures.get(percentile + "_ns")));
        }
        if (figures.get("latency_trend") instanceof Double) {
            row(figuresView, screen.getString(R.string.latency_trend),
                    screen.getString(R.string.times, figures.get("latency_trend")));
        }
        List<String> minutes = new ArrayList<String>();
        for (Object one : list(result.get("per_minute"))) {
            minutes.add(time(map(one).get("p50_ns")));
        }
        if (minutes.size() > 1) {
            row(figuresView, screen.getString(R.string.minutes), join(minutes));
        }
        Map<?, ?> agreement = map(result.get("agreement"));
        if (!agreement.isEmpty()) {
            row(figuresView, screen.getString(R.string.agreement), screen.getString(R.string.agrees,
                    agreement.get("same_class"), agreement.get("samples"), apart(agreement)));
        }
        if (result.get("correct") instanceof Long && result.get("samples") instanceof Long) {
            double share = 100.0 * (Long) result.get("correct") / Math.max(1, (Long) result.get("samples"));
            row(figuresView, screen.getString(R.string.accuracy),
                    screen.getString(R.string.correct, share, result.get("correct"), result.get("samples")));
        }
        long hottest = -1;
        for (Object one : list(result.get("thermal"))) {
            Object status = one instanceof long[] ? ((long[]) one)[1] : list(one).size() > 1 ? list(one).get(1) : null;
            hottest = status instanceof Long ? Math.max(hottest, (Long) status) : hottest;
        }
        if (!list(result.get("thermal")).isEmpty()) {
            row(figuresView, screen.getString(R.string.hottest), Device.thermal(hottest));
        }
    }

    private static String count(Object value) {
        return value instanceof Long ? String.format("%,d", value) : String.valueOf(value);
    }

    private String apart(Map<?, ?> agreement) {
        double worst = agreement.get("worst") instanceof Double ? (Double) agreement.get("worst") : 0;
        return "steps".equals(agreement.get("unit"))
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
        if (!(nanos instanceof Long)) {
            return "";
        }
        double value = (Long) nanos;
        return value < MILLI ? String.format("%.1f µs", value / MICRO) : String.format("%.2f ms", value / MILLI);
    }

    /** Model, threads, accelerator. */
    static String setting(Context context, Map<String, Object> result) {
        String model = String.valueOf(result.get("model"));
        boolean sustained = result.get("sustained_seconds") instanceof Double && (Double) result.get("sustained_seconds") > 0;
        long threads = result.get("threads") instanceof Long ? (Long) result.get("threads") : 1;
        return context.getResources().getQuantityString(R.plurals.setting, (int) threads, (int) threads,
                model.equals(Models.BUNDLED) ? context.getString(R.string.bundled) : model,
                String.valueOf(result.get("accelerator")).toUpperCase(Locale.ROOT))
                + (sustained ? ", " + context.getString(R.string.sustained_short) : "");
    }

    static String when(Context context, Map<String, Object> result) {
        return DateUtils.formatDateTime(context, (Long) result.get("when"),
                DateUtils.FORMAT_SHOW_DATE | DateUtils.FORMAT_SHOW_TIME | DateUtils.FORMAT_ABBREV_MONTH);
    }

    private static String reason(Map<String, Object> result) {
        if (result.get("error") != null) {
            return String.valueOf(result.get("error"));
        }
        List<String> reasons = new ArrayList<String>();
        for (Object one : list(result.get("reasons"))) {
            reasons.add(String.valueOf(one));
        }
        if (result.get("unsaved") != null) {
            reasons.add("not kept in the history: " + result.get("unsaved"));
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

    private static Map<?, ?> map(Object value) {
        return value instanceof Map ? (Map<?, ?>) value : Collections.emptyMap();
    }

    private static List<?> list(Object value) {
        return value instanceof List ? (List<?>) value : Collections.emptyList();
    }

    private void text(int id, String words) {
        TextView view = (TextView) screen.findViewById(id);
        view.setText(words);
        view.setVisibility(words.isEmpty() ? View.GONE : View.VISIBLE);
    }
}
