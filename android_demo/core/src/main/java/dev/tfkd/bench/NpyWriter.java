package dev.tfkd.bench;

import java.io.BufferedOutputStream;
import java.io.Closeable;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.Charset;

/** Writes a known number of samples to a .npy file (format 1). */
public final class NpyWriter implements Closeable {
    private final FileOutputStream file;
    private final BufferedOutputStream out;
    private final byte[] sample;

    /** Creates a file for {@code count} samples of a tensor: its first axis has that size. */
    public NpyWriter(File path, TensorInfo tensor, long count) throws IOException {
        StringBuilder shape = new StringBuilder().append(count).append(',');
        int[] axes = tensor.shape();
        for (int i = 1; i < axes.length; i++) {
            shape.append(' ').append(axes[i]).append(i + 1 < axes.length ? "," : "");
        }
        StringBuilder header = new StringBuilder("{'descr': '" + tensor.type.descr
                + "', 'fortran_order': False, 'shape': (" + shape + "), }");
        while ((10 + header.length() + 1) % 64 != 0) {
            header.append(' ');
        }
        header.append('\n');
        file = new FileOutputStream(path);
        out = new BufferedOutputStream(file, 1 << 16);
        out.write(new byte[] {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0});
        out.write(header.length() & 255);
        out.write(header.length() >> 8);
        out.write(header.toString().getBytes(Charset.forName("ISO-8859-1")));
        sample = new byte[tensor.bytes()];
    }

    /** Appends the sample at the start of a buffer. */
    public void add(ByteBuffer from) throws IOException {
        from.rewind();
        from.get(sample);
        out.write(sample);
    }

    @Override
    public void close() throws IOException {
        try {
            out.flush();
            file.getFD().sync();
        } finally {
            out.close();
        }
    }
}
