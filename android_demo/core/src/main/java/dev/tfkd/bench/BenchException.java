package dev.tfkd.bench;

/** Invalid input of a run: where it is, what is expected, what was received. */
public final class BenchException extends Exception {
    private static final long serialVersionUID = 1L;

    public BenchException(String where, String expected, Object received) {
        super(where + ": must be " + expected + ". Received: " + received + ".");
    }
}
