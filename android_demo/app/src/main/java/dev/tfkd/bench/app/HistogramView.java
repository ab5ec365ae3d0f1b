package dev.tfkd.bench.app;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.view.View;
import java.util.Arrays;

/** Latencies as bars, from the least to the 99th percentile. */
public final class HistogramView extends View {
    private static final int BARS = 40;

    private final Paint bar = new Paint();
    private final Paint label = new Paint(Paint.ANTI_ALIAS_FLAG);
    private int[] counts = new int[0];
    private String least = "";
    private String most = "";

    public HistogramView(Context context, AttributeSet attributes) {
        super(context, attributes);
        bar.setColor(0xff0b5fa5);
        label.setColor(0xff808080);
        label.setTextSize(16 * getResources().getDisplayMetrics().scaledDensity);
    }

    void show(long[] nanos) {
        counts = new int[BARS];
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        long low = sorted[0];
        long high = Math.max(low + 1, sorted[(int) (0.99 * (sorted.length - 1))]);
        for (long one : sorted) {
            if (one <= high) {
                counts[(int) Math.min(BARS - 1, (one - low) * BARS / (high - low))]++;
            }
        }
        least = String.format("%.3f ms", low / 1e6);
        most = String.format("%.3f ms", high / 1e6);
        setContentDescription("Histogram of latencies from " + least + " to " + most);
        invalidate();
    }

    @Override
    protected void onDraw(Canvas canvas) {
        super.onDraw(canvas);
        int highest = 1;
        for (int count : counts) {
            highest = Math.max(highest, count);
        }
        float foot = getHeight() - 1.5f * label.getTextSize();
        float width = (float) getWidth() / BARS;
        for (int i = 0; i < counts.length; i++) {
            canvas.drawRect(i * width + 1, foot * (1 - (float) counts[i] / highest), (i + 1) * width - 1, foot, bar);
        }
        canvas.drawText(least, 0, getHeight() - 4, label);
        canvas.drawText(most, getWidth() - label.measureText(most), getHeight() - 4, label);
    }
}
