package dev.tfkd.bench;

/** Element types of tensors and .npy files, little-endian. */
public enum TensorType {
    INT8("|i1", 1),
    UINT8("|u1", 1),
    BOOL("|b1", 1),
    INT16("<i2", 2),
    INT32("<i4", 4),
    INT64("<i8", 8),
    FLOAT32("<f4", 4);

    public final String descr;
    public final int bytes;

    TensorType(String descr, int bytes) {
        this.descr = descr;
        this.bytes = bytes;
    }

    /** The type for the {@code descr} of a .npy header. */
    public static TensorType of(String descr) throws BenchException {
        for (TensorType type : values()) {
            if (type.descr.equals(descr)) {
                return type;
            }
        }
        throw new BenchException(".npy header", "a data type that tensors have", descr);
    }
}
