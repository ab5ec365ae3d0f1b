/* Symbols that Android's C library has and glibc lacks: with them LiteRT's library for Android on x86-64 runs on a
 * desktop. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In bionic stderr is &__sF[2], and an element has 152 bytes. glibc's stderr is unbuffered, so that a copy of it and of
 * its vtable works. */
enum { STDERR = 2 * 152, FILE_BYTES = sizeof(FILE) + sizeof(void *) };
char __sF[STDERR + FILE_BYTES] __attribute__((aligned(16)));
__attribute__((constructor)) static void copy_stderr(void) { memcpy(__sF + STDERR, (void *)stderr, FILE_BYTES); }

int *__errno(void) { return __errno_location(); }

size_t __strlen_chk(const char *text, size_t size) {
    (void)size;
    return strlen(text);
}

int __system_property_get(const char *name, char *value) {
    (void)name;
    value[0] = 0;
    return 0;
}

void android_set_abort_message(const char *message) { fprintf(stderr, "%s\n", message); }

int __android_log_vprint(int priority, const char *tag, const char *format, va_list arguments) {
    (void)priority, (void)tag, (void)format, (void)arguments; /* LiteRT prints the same text to stderr */
    return 0;
}

/* Both C libraries have these functions, with other constants and another result type. desktop_app.py renames the
 * imports of LiteRT's library to these. */
long Sysconf(int name) {
    return sysconf(name == 39 ? _SC_PAGESIZE : name == 96 ? _SC_NPROCESSORS_CONF : name == 97 ? _SC_NPROCESSORS_ONLN : name);
}

int Strerror_r(int code, char *text, size_t size) {
    snprintf(text, size, "%s", strerror(code));
    return 0;
}
