"""Evaluates android_demo/app/build.gradle with Gradle's classes and the Android Gradle Plugin.

Both come from Maven Central (a download of 300 MB). Maven Central has no complete Gradle, so settings.gradle and the
plugins blocks are not evaluated, and nothing is compiled. A setting that the plugin does not support is an error.

    python tools/check_gradle.py
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import build_apk

GRADLE = "8.11.1"  # newest gradle-api on Maven Central
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>check</groupId><artifactId>check</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>dev.gradleplugins</groupId><artifactId>gradle-api</artifactId><version>{gradle}</version></dependency>
<dependency><groupId>com.android.tools.build</groupId><artifactId>gradle</artifactId><version>{plugin}</version></dependency>
</dependencies></project>
"""


def main() -> None:
    """Prints the settings that the plugin read from the build file."""
    plugin = re.search(r"'com.android.application' version '([\d.]+)'", (build_apk.DEMO / "build.gradle").read_text())
    if plugin is None:
        sys.exit("check_gradle: android_demo/build.gradle does not name the version of com.android.application.")
    app = build_apk.DEMO / "app"
    with tempfile.TemporaryDirectory(prefix="tfkd-") as temporary:
        folder = Path(temporary)
        (folder / "pom.xml").write_text(POM.format(gradle=GRADLE, plugin=plugin[1]))
        os.environ["ANDROID_HOME"] = temporary  # the plugin only checks that it exists
        script = folder / "app.gradle"  # an applied script may not contain a plugins block
        script.write_text(re.sub(r"(?m)^plugins \{[^}]*\}", "", (app / "build.gradle").read_text()))
        try:
            build_apk.call(
                "mvn",
                "-q",
                "-B",
                "-f",
                folder / "pom.xml",
                "dependency:build-classpath",
                f"-Dmdep.outputFile={folder}/classpath",
            )
            opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util")]
            program = Path(__file__).with_name("EvaluateGradle.java")
            settings = build_apk.call(
                "java", *opened, "-cp", (folder / "classpath").read_text(), program, app, script, folder / "home"
            )
        except build_apk.ToolFailedError as error:
            sys.exit(f"check_gradle: {error}")
    print(f"Android Gradle Plugin {plugin[1]}\n{settings}", end="")


if __name__ == "__main__":
    main()
