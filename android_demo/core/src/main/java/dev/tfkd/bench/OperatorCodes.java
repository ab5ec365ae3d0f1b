package dev.tfkd.bench;

import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.util.HashSet;
import java.util.Set;

/** The numbers of the ops that a .tflite uses in any of its subgraphs, which LiteRT's Java interface does not have. */
final class OperatorCodes {
    private static final int VAR_HANDLE = 142;
    private static final int RANDOM_STANDARD_NORMAL = 146;
    private static final int RANDOM_UNIFORM = 148;
    private static final int MULTINOMIAL = 149;

    private static final int MODEL_OPERATOR_CODES = 1;
    private static final int OPERATOR_CODE_BUILTIN_CODE = 3;

    private final ByteBuffer file;

    private OperatorCodes(ByteBuffer file) {
        this.file = file;
    }

    /**
     * Whether a model has an op whose state LiteRT's reset leaves as it is: a resource variable or a random generator.
     *
     * @param model a file that LiteRT has accepted, so that its offsets are right
     */
    static boolean haveStateWithoutReset(File model) throws IOException {
        RandomAccessFile file = new RandomAccessFile(model, "r");
        try {
            ByteBuffer content = file.getChannel().map(FileChannel.MapMode.READ_ONLY, 0, file.length());
            Set<Integer> codes = new OperatorCodes(content.order(ByteOrder.LITTLE_ENDIAN)).all();
            return codes.contains(VAR_HANDLE) || codes.contains(RANDOM_STANDARD_NORMAL)
                    || codes.contains(RANDOM_UNIFORM) || codes.contains(MULTINOMIAL);
        } finally {
            file.close();
        }
    }

    private Set<Integer> all() {
        Set<Integer> codes = new HashSet<Integer>();
        int vector = field(target(0), MODEL_OPERATOR_CODES);
        vector = vector == 0 ? 0 : target(vector);
        for (int i = 0; vector != 0 && i < file.getInt(vector); i++) {
            // The field holds all numbers; an older one of 8 bits ends at 127, below the numbers that are needed here.
            int code = field(target(vector + 4 + 4 * i), OPERATOR_CODE_BUILTIN_CODE);
            codes.add(code == 0 ? 0 : file.getInt(code));
        }
        return codes;
    }

    /** Follows a relative offset. */
    private int target(int at) {
        return at + file.getInt(at);
    }

    /**
     * Position of a field of a flatbuffer's table; 0 if it is absent.
     *
     * <pre>
     * table:  [int32: table - vtable] fields ...
     * vtable: [uint16: its bytes] [uint16: bytes of the table] [uint16: offset of field 0 in the table, or 0] ...
     * </pre>
     */
    private int field(int table, int number) {
        int vtable = table - file.getInt(table);
        int entry = 4 + 2 * number;
        int offset = entry < file.getShort(vtable) ? file.getShort(vtable + entry) : 0;
        return offset == 0 ? 0 : table + offset;
    }
}
