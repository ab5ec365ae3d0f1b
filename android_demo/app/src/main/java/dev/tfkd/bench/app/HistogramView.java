package dev.tfkd.bench.app;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.view.View;
import dev.tfkd.bench.Json;
import dev.tfkd.bench.Statistics;
import java.util.Arrays;
import org.json.JSONObject;

/** Histogram of latencies with marks at p50 and p90. It ends at p95, as outliers would compress all other bars. */
public final class HistogramView extends View {
    private static final int BARS = 40;
    private static final int MOST = 95;
    private static final int[] MARKS = {50, 90};

    private final float unit = getResources().getDisplayMetrics().density;
    private final Paint bar = new Paint(Paint.ANTI_ALIAS_FLAG);
    private final Paint line = new Paint();
    private final Paint label = new Paint(Paint.ANTI_ALIAS_FLAG);
    private int[] counts = new int[0];
    private long low;
    private long high;
    private final long[] marks = new long[MARKS.length];

    public HistogramView(Context context, AttributeSet attributes) {
        super(context, attributes);
        bar.setColor(context.getColor(R.color.accent));
        line.setColor(context.getColor(R.color.faint));
        line.setStrokeWidth(unit);
        label.setColor(context.getColor(R.color.faint));
        label.setTextSize(12 * getResources().getDisplayMetrics().scaledDensity);
    }

    /** Shows latencies. Some may have been thinned out; {@code figures} are the statistics of all. */
    void show(long[] nanos, JSONObject figures) {
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        low = figure(figures, "min_ns", sorted[0]);
        high = Math.max(low + 1, figure(figures, "p" + MOST + "_ns", Statistics.percentile(sorted, MOST)));
        counts = new int[BARS];
        for (long one : sorted) {
            if (one >= low && one <= high) {
                counts[(int) Math.min(BARS - 1, BARS * ((double) one - low) / ((double) high - low))]++;
            }
        }
        for (int i = 0; i < MARKS.length; i++) {
            marks[i] = figure(figures, "p" + MARKS[i] + "_ns", Statistics.percentile(sorted, MARKS[i]));
        }
        setContentDescription(getContext().getString(R.string.histogram, ResultCard.time(low), ResultCard.time(high)));
        invalidate();
    }

    private static long figure(JSONObject figures, String name, long otherwise) {
        return Json.isWhole(figures.opt(name)) ? figures.optLong(name) : otherwise;
    }

    @Override
    protected void onDraw(Canvas canvas) {
        super.onDraw(canvas);
        int highest = 1;
        for (int count : counts) {
            highest = Math.max(highest, count);
        }
        float text = 1.4f * label.getTextSize();
        float top = MARKS.length * text;
        float foot = getHeight() - text;
        float width = (float) getWidth() / BARS;
        for (int i = 0; i < counts.length; i++) {
            float height = counts[i] == 0 ? 0 : Math.max(unit, (foot - top) * counts[i] / highest);
            canvas.drawRect(i * width + unit / 2, foot - height, (i + 1) * width - unit / 2, foot, bar);
        }
        canvas.drawLine(0, foot, getWidth(), foot, line);
        for (int i = 0; i < MARKS.length; i++) {
            float x = getWidth() * (float) ((double) (marks[i] - low) / (high - low));
            String mark = "p" + MARKS[i];
            canvas.drawLine(x, (i + 1) * text, x, foot, line);
            float left = Math.min(Math.max(0, x - label.measureText(mark) / 2), getWidth() - label.measureText(mark));
            canvas.drawText(mark, left, (i + 1) * text - label.descent() / 2, label);
        }
        String least = ResultCard.time(low);
        String most = "p" + MOST + " " + ResultCard.time(high);
        canvas.drawText(least, 0, getHeight() - label.descent(), label);
        canvas.drawText(most, getWidth() - label.measureText(most), getHeight() - label.descent(), label);
    }
}
