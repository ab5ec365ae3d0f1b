import java.io.File;
import java.nio.file.Files;
import java.util.Collections;
import org.gradle.api.Project;
import org.gradle.api.artifacts.Dependency;
import org.gradle.testfixtures.ProjectBuilder;

/**
 * Started by check_gradle.py. Arguments: the app's folder, its build file without the plugins block, a home folder for
 * Gradle.
 */
public class EvaluateGradle {
    public static void main(String[] arguments) {
        int status = 1;
        try {
            evaluate(new File(arguments[0]), new File(arguments[1]), new File(arguments[2]));
            status = 0;
        } catch (Throwable error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                System.err.println(cause);
            }
        }
        System.exit(status); // Gradle's threads would keep the process alive
    }

    private static void evaluate(File folder, File script, File home) throws Exception {
        Project root = ProjectBuilder.builder().withProjectDir(folder.getParentFile()).withGradleUserHomeDir(home).build();
        Project app = ProjectBuilder.builder().withName("app").withParent(root).withProjectDir(folder).build();
        for (Project project : new Project[] {root, app}) { // the newest gradle-api on Maven Central is older than the plugin requires
            project.getExtensions().getExtraProperties().set("android.overrideVersionCheck", "true");
        }
        app.getPluginManager().apply("com.android.application");
        app.apply(Collections.singletonMap("from", script));
        System.out.println("Gradle " + root.getGradle().getGradleVersion());
        Object android = app.getExtensions().getByName("android");
        Object defaults = read(android, "getDefaultConfig");
        System.out.println("namespace " + read(android, "getNamespace"));
        System.out.println("compileSdk " + read(android, "getCompileSdk"));
        System.out.println("minSdk " + read(defaults, "getMinSdk") + ", targetSdk " + read(defaults, "getTargetSdk"));
        System.out.println("versionCode " + read(defaults, "getVersionCode"));
        for (Dependency one : app.getConfigurations().getByName("implementation").getDependencies()) {
            System.out.println("implementation " + one.getGroup() + ":" + one.getName() + ":" + one.getVersion());
        }
        if (!app.getTasks().getNames().contains("assemble")) {
            throw new IllegalStateException("the plugin created no task assemble: " + app.getTasks().getNames());
        }
    }

    private static Object read(Object owner, String getter) throws Exception {
        return owner.getClass().getMethod(getter).invoke(owner);
    }
}
