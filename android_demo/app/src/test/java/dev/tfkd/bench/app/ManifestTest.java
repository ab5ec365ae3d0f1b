package dev.tfkd.bench.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import android.content.pm.ApplicationInfo;
import android.content.pm.PackageInfo;
import android.content.pm.PackageManager;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;

/** The manifest as Android's package manager reads it. */
@RunWith(RobolectricTestRunner.class)
public class ManifestTest {
    private final PackageManager manager = RuntimeEnvironment.getApplication().getPackageManager();

    @Test
    public void onlyTheLauncherIsExportedAndNoPermissionOrBackupIsDeclared() throws Exception {
        PackageInfo app = manager.getPackageInfo(RuntimeEnvironment.getApplication().getPackageName(),
                PackageManager.GET_ACTIVITIES | PackageManager.GET_SERVICES | PackageManager.GET_PROVIDERS
                | PackageManager.GET_RECEIVERS | PackageManager.GET_PERMISSIONS);
        assertEquals(1, app.activities.length);
        assertEquals(MainActivity.class.getName(), app.activities[0].name);
        assertTrue(app.activities[0].exported);
        assertNull(app.services);
        assertNull(app.providers);
        assertNull(app.receivers);
        assertNull(app.requestedPermissions);
        assertEquals(0, app.applicationInfo.flags & ApplicationInfo.FLAG_ALLOW_BACKUP);
        assertEquals(26, app.applicationInfo.minSdkVersion);
        assertEquals(35, app.applicationInfo.targetSdkVersion);
    }

    @Test
    public void launcherStartsTheActivity() {
        String name = RuntimeEnvironment.getApplication().getPackageName();
        assertEquals(MainActivity.class.getName(), manager.getLaunchIntentForPackage(name).getComponent().getClassName());
    }
}
