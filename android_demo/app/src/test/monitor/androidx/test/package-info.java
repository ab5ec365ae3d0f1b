/**
 * The few classes of {@code androidx.test:monitor} that Robolectric names. That artifact lies on Google's Maven only, and
 * these tests need Maven Central alone; nobody listens here, so the monitors hear and forget.
 */
package androidx.test;
