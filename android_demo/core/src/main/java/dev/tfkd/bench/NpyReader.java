package dev.tfkd.bench;

import java.io.BufferedInputStream;
import java.io.Closeable;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.Charset;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads the samples of a .npy file (formats 1 and 2, C order) one at a time, in the memory of one sample. */
public final class NpyReader implements Closeable {
    private static final byte[] MAGIC = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y'};
    private static final int LONGEST_HEADER = 4096;
    private static final int LARGEST_SAMPLE = 64 << 20;
    private static final Pattern HEADER = Pattern.compile(
            "\\s*\\{\\s*'descr':\\s*'([^']{3})',\\s*'fortran_order':\\s*(True|False),"
                    + "\\s*'shape':\\s*\\(([0-9, ]*)\\),?\\s*\\}\\s*");

    private final InputStream in;
    private final String name;
    private final byte[] sample;
    private long left;
    public final TensorType type;
    /** Number of samples in the file. */
    public final long count;
    private final int[] shape;

    public NpyReader(File file) throws BenchException, IOException {
        name = file.getName();
        in = new BufferedInputStream(new FileInputStream(file), 1 << 16);
        boolean sound = false;
        try {
            byte[] start = read(10);
            for (int i = 0; i < MAGIC.length; i++) {
                if (start[i] != MAGIC[i]) {
                    throw new BenchException(name, "a .npy file", "a file with another magic number");
                }
            }
            int version = start[6];
            long length = (start[8] & 255) | (start[9] & 255) << 8;
            int prefix = 10;
            if (version == 2) {
                byte[] more = read(2);
                length |= (long) (more[0] & 255) << 16 | (long) (more[1] & 255) << 24;
                prefix = 12;
            }
            if (version < 1 || version > 2 || length > LONGEST_HEADER) {
                throw new BenchException(name, "a .npy of format 1 or 2 with a header of at most " + LONGEST_HEADER
                        + " bytes", "format " + version + ", " + length + " bytes");
            }
            String header = new String(read((int) length), Charset.forName("ISO-8859-1"));
            Matcher found = HEADER.matcher(header);
            if (!found.matches() || found.group(2).equals("True")) {
                throw new BenchException(name + " header", "the header of an array in C order", header.trim());
            }
            type = TensorType.of(found.group(1));
            long[] sizes = sizes(found.group(3));
            count = sizes[0];
            shape = new int[sizes.length - 1];
            long bytes = type.bytes;
            for (int i = 1; i < sizes.length; i++) {
                shape[i - 1] = (int) Math.min(sizes[i], LARGEST_SAMPLE);
                bytes = Math.min(bytes * shape[i - 1], (long) LARGEST_SAMPLE + 1);
            }
            if (bytes < 1 || bytes > LARGEST_SAMPLE) {
                throw new BenchException(name, "an array with samples of 1 to " + LARGEST_SAMPLE + " bytes", bytes + " or more");
            }
            if (count > (file.length() - prefix - length) / bytes || file.length() != prefix + length + count * bytes) {
                throw new BenchException(name, "as long as its header declares, " + count + " samples of " + bytes
                        + " bytes", file.length() + " bytes in all");
            }
            sample = new byte[(int) bytes];
            left = count;
            sound = true;
        } finally {
            if (!sound) {
                in.close();
            }
        }
    }

    /** Shape of a sample. */
    public int[] shape() {
        return shape.clone();
    }

    /** Reads the next sample to the start of a buffer. Returns false at the end of the file. */
    public boolean next(ByteBuffer into) throws IOException {
        if (left == 0) {
            return false;
        }
        fill(sample);
        into.clear();
        into.put(sample);
        into.rewind();
        left--;
        return true;
    }

    @Override
    public void close() throws IOException {
        in.close();
    }

    private long[] sizes(String text) throws BenchException {
        String[] parts = text.trim().isEmpty() ? new String[0] : text.trim().split("\\s*,\\s*");
        if (parts.length < 1 || parts.length > 8) {
            throw new BenchException(name, "an array of 1 to 8 axes", text);
        }
        long[] found = new long[parts.length];
        for (int i = 0; i < parts.length; i++) {
            if (!parts[i].matches("[0-9]{1,12}") || parts[i].matches("0+")) {
                throw new BenchException(name + " shape", "sizes >= 1", text);
            }
            found[i] = Long.parseLong(parts[i]);
        }
        return found;
    }

    private byte[] read(int bytes) throws IOException, BenchException {
        byte[] found = new byte[bytes];
        try {
            fill(found);
        } catch (EOFException error) {
            throw new BenchException(name, "a complete .npy file", "a truncated one");
        }
        return found;
    }

    private void fill(byte[] into) throws IOException {
        for (int at = 0, n; at < into.length; at += n) {
            n = in.read(into, at, into.length - at);
            if (n < 0) {
                throw new EOFException(name + " ends too early");
            }
        }
    }
}
