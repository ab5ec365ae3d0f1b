/**
 * Stubs of the few classes of {@code androidx.test:monitor} that Robolectric refers to. That artifact is only in Google's
 * Maven repository, and these tests use Maven Central only. The monitors ignore all events.
 */
package androidx.test;
