package dev.tfkd.bench;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.Charset;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** The folder of one run. Nothing outside of it is read or written, links are not followed, writes are atomic. */
public final class RunFolder {
    private static final Charset UTF_8 = Charset.forName("UTF-8");
    private static final int LARGEST_TEXT = 1 << 20;

    private final File folder;

    /** The folder of a run in a root folder. It must exist. */
    public RunFolder(File root, String id) throws BenchException, IOException {
        if (!RunSpec.ID.matcher(id).matches()) {
            throw new BenchException("run id", "a name of the form " + RunSpec.ID, id);
        }
        folder = new File(root.getCanonicalFile(), id);
        if (!Files.isDirectory(folder.toPath(), LinkOption.NOFOLLOW_LINKS)) {
            throw new BenchException("run " + id, "a folder, not a link", folder.getName() + ", which is not a folder");
        }
    }

    /** Reads spec.json. */
    public RunSpec spec() throws BenchException, IOException {
        RunSpec spec = RunSpec.parse(text("spec.json"));
        if (!spec.id.equals(folder.getName())) {
            throw new BenchException("run.id", "the name of its folder, " + folder.getName(), spec.id);
        }
        return spec;
    }

    /** Reads a text file of at most one MiB. */
    public String text(String name) throws BenchException, IOException {
        File file = existing(name);
        if (file.length() > LARGEST_TEXT) {
            throw new BenchException(name, "at most " + LARGEST_TEXT + " bytes", file.length() + " bytes");
        }
        return new String(Files.readAllBytes(file.toPath()), UTF_8);
    }

    /** A file of the run whose size and SHA-256 were verified. */
    public File verified(RunSpec.Asset asset) throws BenchException, IOException {
        File file = existing(asset.file);
        if (file.length() != asset.bytes) {
            throw new BenchException(asset.file, asset.bytes + " bytes long", file.length() + " bytes");
        }
        String found = sha256(file);
        if (!found.equals(asset.sha256)) {
            throw new BenchException(asset.file, "a file with SHA-256 " + asset.sha256, found);
        }
        return file;
    }

    /** Path of a file to write. */
    public File output(String name) {
        return new File(folder, name);
    }

    /** Writes a text file atomically: it is synchronized under another name, then renamed. */
    public void write(String name, String text) throws IOException {
        File partial = output(name + ".partial");
        FileOutputStream out = new FileOutputStream(partial);
        try {
            out.write(text.getBytes(UTF_8));
            out.getFD().sync();
        } finally {
            out.close();
        }
        Files.move(partial.toPath(), output(name).toPath(), StandardCopyOption.ATOMIC_MOVE);
    }

    /** SHA-256 of a file, as 64 hexadecimal digits. */
    public static String sha256(File file) throws IOException {
        MessageDigest digest;
        try {
            digest = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IOException(error); // cannot happen: every Java and Android has SHA-256
        }
        InputStream in = new FileInputStream(file);
        try {
            byte[] part = new byte[1 << 16];
            for (int n = in.read(part); n >= 0; n = in.read(part)) {
                digest.update(part, 0, n);
            }
        } finally {
            in.close();
        }
        StringBuilder hex = new StringBuilder();
        for (byte one : digest.digest()) {
            hex.append(String.format("%02x", one));
        }
        return hex.toString();
    }

    private File existing(String name) throws BenchException {
        File file = output(name);
        if (!Files.isRegularFile(file.toPath(), LinkOption.NOFOLLOW_LINKS)) {
            throw new BenchException(name, "a file in the run's folder, not a link", "no such file");
        }
        return file;
    }
}
