/* The symbols that NVIDIA's Python bindings link against, answered by whoever sets the handlers.
 *
 * Written for the tests of trtbuild; holds no NVIDIA code. One file is compiled once as libnvinfer and
 * left empty (-DEMPTY) for the plugin and parser libraries, so that there is one set of handlers. */
#ifndef EMPTY
#include <stdint.h>

typedef void *(*create_t)(int kind, void *first, void *logger, int version);

static create_t create;
static int library_version;

void standin_set_create(create_t handler) { create = handler; }
void standin_set_library_version(int version) { library_version = version; }

static void *make(int kind, void *first, void *logger, int version) {
    return create ? create(kind, first, logger, version) : 0;
}

void *createInferBuilder_INTERNAL(void *logger, int version) { return make(0, 0, logger, version); }
void *createInferRuntime_INTERNAL(void *logger, int version) { return make(1, 0, logger, version); }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
    return make(2, network, logger, version);
}
void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) {
    return make(3, engine, logger, version);
}
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) {
    return make(4, refitter, logger, version);
}
void *getBuilderPluginRegistry(int capability) { (void)capability; return 0; }
void *getPluginRegistry(void) { return make(5, 0, 0, 0); }
_Bool initLibNvInferPlugins(void *logger, const char *library) {
    (void)library;
    make(6, 0, logger, 0); /* makes nothing, and is noted */
    return 1;
}
int getInferLibVersion(void) { return library_version; }
int getNvOnnxParserVersion(void) { return library_version; }
#endif
