// Defaults of the sanitizers' run-time options, linked into every program of a sanitized build. What libraries that are
// not ours leak is let pass here, with the reason; the environment (ASAN_OPTIONS, LSAN_OPTIONS, ...) overrides.
extern "C" {

const char* __ubsan_default_options() { return "print_stacktrace=1"; }

const char* __lsan_default_options() { return "print_suppressions=0"; }

// libOSMesa: Mesa keeps a few kilobytes of each context until the process ends, also after OSMesaDestroyContext.
const char* __lsan_default_suppressions() { return "leak:libOSMesa.so\n"; }
}
