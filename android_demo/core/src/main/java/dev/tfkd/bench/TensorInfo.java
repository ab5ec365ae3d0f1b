package dev.tfkd.bench;

/** An input or output of a model with batch size 1. */
public final class TensorInfo {
    public final String name;
    public final TensorType type;
    private final int[] shape;
    /** Quantization scale, 0 if the tensor is not quantized. */
    public final float scale;
    public final int zeroPoint;

    public TensorInfo(String name, TensorType type, int[] shape, float scale, int zeroPoint) {
        this.name = name;
        this.type = type;
        this.shape = shape.clone();
        this.scale = scale;
        this.zeroPoint = zeroPoint;
    }

    /** Sizes of its axes, the batch axis first. */
    public int[] shape() {
        return shape.clone();
    }

    /** Bytes of one sample. */
    public int bytes() {
        int found = type.bytes;
        for (int size : shape) {
            found = Math.multiplyExact(found, size);
        }
        return found;
    }

    /** Quantized value of a real one: rounded half to even, and saturated. */
    public int quantize(float value) {
        double steps = value / scale;
        long rounded = (long) Math.rint(steps) + zeroPoint;
        int least = type == TensorType.UINT8 ? 0 : type == TensorType.INT8 ? -128 : -32768;
        int most = type == TensorType.UINT8 ? 255 : type == TensorType.INT8 ? 127 : 32767;
        return (int) Math.max(least, Math.min(most, rounded));
    }

    /** Real value of a quantized one. */
    public float dequantize(int stored) {
        return (stored - zeroPoint) * scale;
    }
}
