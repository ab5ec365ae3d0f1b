package dev.tfkd.bench;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** A model's outputs against what the host made of the same samples, and against their labels. */
public final class Agreement {
    /** Engines round otherwise: XNNPACK is up to 4 quantization steps from the reference kernels. */
    private static final int MOST_STEPS = 8;
    private static final double LEAST_SAME = 0.98;

    private Agreement() {}

    /**
     * Compares sample by sample.
     *
     * @return samples; {@code same_class}, whose largest output is the same; {@code bit_equal}; {@code worst}, the largest
     *     difference of one output, in quantization steps or in the output's own unit; {@code agrees}
     */
    public static Map<String, Object> of(File outputs, File golden) throws BenchException, IOException {
        NpyReader ours = new NpyReader(outputs);
        try {
            NpyReader theirs = new NpyReader(golden);
            try {
                if (ours.type != theirs.type || !Arrays.equals(ours.shape(), theirs.shape())
                        || ours.count != theirs.count) {
                    throw new BenchException(golden.getName(), "like the outputs, " + kind(ours), kind(theirs));
                }
                return compared(ours, theirs);
            } finally {
                theirs.close();
            }
        } finally {
            ours.close();
        }
    }

    /** How many samples have the class that their label, an int64, names. */
    public static long correct(File outputs, File labels) throws BenchException, IOException {
        NpyReader ours = new NpyReader(outputs);
        try {
            NpyReader theirs = new NpyReader(labels);
            try {
                if (theirs.type != TensorType.INT64 || theirs.shape().length != 0 || theirs.count != ours.count) {
                    throw new BenchException(labels.getName(), ours.count + " labels of " + TensorType.INT64, kind(theirs));
                }
                ByteBuffer sample = buffer(ours);
                ByteBuffer label = buffer(theirs);
                long correct = 0;
                while (ours.next(sample) && theirs.next(label)) {
                    correct += best(values(sample, ours.type)) == label.getLong(0) ? 1 : 0;
                }
                return correct;
            } finally {
                theirs.close();
            }
        } finally {
            ours.close();
        }
    }

    private static Map<String, Object> compared(NpyReader ours, NpyReader theirs) throws IOException {
        ByteBuffer one = buffer(ours);
        ByteBuffer other = buffer(theirs);
        long same = 0;
        long equal = 0;
        double worst = 0;
        while (ours.next(one) && theirs.next(other)) {
            double[] found = values(one, ours.type);
            double[] wanted = values(other, theirs.type);
            double largest = 0;
            for (int i = 0; i < found.length; i++) {
                largest = Math.max(largest, Math.abs(found[i] - wanted[i]));
            }
            worst = Math.max(worst, largest);
            equal += largest == 0 ? 1 : 0;
            same += best(found) == best(wanted) ? 1 : 0;
        }
        boolean steps = ours.type != TensorType.FLOAT32;
        Map<String, Object> result = new LinkedHashMap<String, Object>();
        result.put("samples", ours.count);
        result.put("same_class", same);
        result.put("bit_equal", equal);
        result.put("worst", worst);
        result.put("unit", steps ? "steps" : "");
        result.put("agrees", same >= LEAST_SAME * ours.count && (!steps || worst <= MOST_STEPS));
        return result;
    }

    private static String kind(NpyReader data) {
        return data.count + " samples of " + data.type + " " + Arrays.toString(data.shape());
    }

    private static ByteBuffer buffer(NpyReader data) {
        int bytes = data.type.bytes;
        for (int size : data.shape()) {
            bytes *= size;
        }
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static double[] values(ByteBuffer from, TensorType type) {
        double[] found = new double[from.capacity() / type.bytes];
        for (int i = 0; i < found.length; i++) {
            int at = i * type.bytes;
            switch (type) {
                case FLOAT32:
                    found[i] = from.getFloat(at);
                    break;
                case INT64:
                    found[i] = from.getLong(at);
                    break;
                case INT32:
                    found[i] = from.getInt(at);
                    break;
                case INT16:
                    found[i] = from.getShort(at);
                    break;
                case UINT8:
                    found[i] = from.get(at) & 255;
                    break;
                default:
                    found[i] = from.get(at);
            }
        }
        return found;
    }

    /** The first of the largest. */
    private static int best(double[] values) {
        int found = 0;
        for (int i = 1; i < values.length; i++) {
            found = values[i] > values[found] ? i : found;
        }
        return found;
    }
}
