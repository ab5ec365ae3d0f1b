package dev.tfkd.bench;

/** What a run was given is wrong: where, what was expected, what was received. */
public final class BenchException extends Exception {
    private static final long serialVersionUID = 1L;

    public BenchException(String where, String expected, Object received) {
        super(where + ": must be " + expected + ". Received: " + received + ".");
    }
}
