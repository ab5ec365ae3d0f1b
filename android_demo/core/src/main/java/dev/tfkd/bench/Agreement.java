package dev.tfkd.bench;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Compares a model's outputs with the host's outputs for the same samples, and with their labels. */
public final class Agreement {
    /** Largest difference that still agrees. Engines round differently: XNNPACK differs from the reference kernels by up to 4. */
    private static final int MOST_STEPS = 8;
    /** Largest difference of floats that still agrees, as a share of the largest expected one: GPUs compute in float16. */
    private static final double MOST_SHARE = 0.05;
    /** Smallest share of samples with the same class that still agrees. */
    private static final double LEAST_SAME = 0.98;

    private Agreement() {}

    /**
     * Compares sample by sample.
     *
     * @return {@code samples}, their number; {@code same_class}, samples with the same largest output; {@code bit_equal},
     *     samples with equal outputs; {@code worst}, the largest difference of an output, in quantization steps for integers,
     *     else in the output's unit; {@code agrees}, whether both differences are within their limits
     */
    public static Map<String, Object> of(File outputsFile, File golden) throws BenchException, IOException {
        NpyReader outputs = new NpyReader(outputsFile);
        try {
            NpyReader expected = new NpyReader(golden);
            try {
                if (outputs.type != expected.type || !Arrays.equals(outputs.shape(), expected.shape())
                        || outputs.count != expected.count) {
                    throw new BenchException(golden.getName(), "of the type and shape of the outputs, " + kind(outputs), kind(expected));
                }
                return compared(outputs, expected);
            } finally {
                expected.close();
            }
        } finally {
            outputs.close();
        }
    }

    /**
     * Compares each output of a model.
     *
     * @return what {@link #of} returns for the first output that does not agree, or else for the last one, and {@code output},
     *     its index
     */
    public static Map<String, Object> ofAll(List<File> outputs, List<File> golden) throws BenchException, IOException {
        if (outputs.size() != golden.size()) {
            throw new BenchException("golden", outputs.size() + " files, one per output", golden.size());
        }
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        for (int i = 0; i < golden.size(); i++) {
            found = of(outputs.get(i), golden.get(i));
            found.put("output", (long) i);
            if (!Boolean.TRUE.equals(found.get("agrees"))) {
                break;
            }
        }
        return found;
    }

    /** Number of samples whose largest output has the index that their label, an int64, gives. */
    public static long correct(File outputsFile, File labels) throws BenchException, IOException {
        NpyReader outputs = new NpyReader(outputsFile);
        try {
            NpyReader expected = new NpyReader(labels);
            try {
                if (expected.type != TensorType.INT64 || expected.shape().length != 0 || expected.count != outputs.count) {
                    throw new BenchException(labels.getName(), outputs.count + " labels of " + TensorType.INT64, kind(expected));
                }
                ByteBuffer sample = buffer(outputs);
                ByteBuffer label = buffer(expected);
                long correct = 0;
                while (outputs.next(sample) && expected.next(label)) {
                    correct += best(values(sample, outputs.type)) == label.getLong(0) ? 1 : 0;
                }
                return correct;
            } finally {
                expected.close();
            }
        } finally {
            outputs.close();
        }
    }

    private static Map<String, Object> compared(NpyReader outputs, NpyReader expected) throws IOException {
        ByteBuffer one = buffer(outputs);
        ByteBuffer other = buffer(expected);
        long same = 0;
        long equal = 0;
        double worst = 0;
        double magnitude = 0;
        while (outputs.next(one) && expected.next(other)) {
            double[] found = values(one, outputs.type);
            double[] wanted = values(other, expected.type);
            double largest = 0;
            for (int i = 0; i < found.length; i++) {
                largest = Math.max(largest, Math.abs(found[i] - wanted[i])); // NaN if one of them is
                magnitude = Math.max(magnitude, Math.abs(wanted[i]));
            }
            worst = Math.max(worst, largest);
            equal += largest == 0 ? 1 : 0;
            same += best(found) == best(wanted) ? 1 : 0;
        }
        boolean steps = outputs.type != TensorType.FLOAT32;
        boolean quantized = steps && outputs.type.bytes <= 2 && outputs.type != TensorType.BOOL; // others are indices
        double most = quantized ? MOST_STEPS : steps ? 0 : MOST_SHARE * magnitude;
        Map<String, Object> result = new LinkedHashMap<String, Object>();
        result.put("samples", outputs.count);
        result.put("same_class", same);
        result.put("bit_equal", equal);
        result.put("worst", Json.finite(worst));
        result.put("unit", steps ? "steps" : "");
        result.put("agrees", same >= LEAST_SAME * outputs.count && worst <= most);
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

    /** Index of the largest value, the first of equal ones. */
    private static int best(double[] values) {
        int found = 0;
        for (int i = 1; i < values.length; i++) {
            found = values[i] > values[found] ? i : found;
        }
        return found;
    }
}
