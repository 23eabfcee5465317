/* A stand-in for the CUDA driver whose device memory is host memory.
 *
 * Written for the tests of trtbuild; holds no NVIDIA code and needs no CUDA header. What it keeps of the real
 * driver is what callers get wrong: work on a stream happens at a synchronisation and not before, a call needs
 * a current context in its own thread, a device pointer must lie in a device allocation, and everything that
 * was allocated is counted. Errors can be ordered by name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201,
       NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801 };
enum { COPY, CALL, RECORD };

typedef void (*work_t)(void *);
typedef struct Event { double time_ms; int done; } Event;
typedef struct Work { int kind; void *to; const void *from; size_t count; work_t call; void *argument;
                      Event *event; struct Work *next; } Work;
typedef struct Stream { Work *first, *last; int capturing; struct Stream *next; } Stream;
typedef struct Block { char *start; size_t size; int device; struct Block *next; } Block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block *blocks;
static Stream default_stream, *streams = &default_stream;
static __thread int context_depth;
static int num_devices = 1, driver_version = 13000, retained, live_streams, live_events, live_graphs, pushed;
static char failing[64];
static int failure;
static char context_object;

/* What the tests ask and order. */
void standin_set_devices(int count) { num_devices = count; }
void standin_set_driver_version(int version) { driver_version = version; }
void standin_fail(const char *function, int code) { snprintf(failing, sizeof failing, "%s", function); failure = code; }
int standin_contexts_retained(void) { return retained; }
int standin_context_depth(void) { return context_depth; }
int standin_live(int device) {
    int count = 0;
    for (Block *b = blocks; b; b = b->next) count += b->device == device;
    return count;
}
int standin_live_streams(void) { return live_streams; }
int standin_live_events(void) { return live_events; }
int standin_live_graphs(void) { return live_graphs; }

#define GUARD(name) do { if (failure && !strcmp(failing, name)) return failure; } while (0)
#define NEED_CONTEXT(name) do { GUARD(name); if (!context_depth) return INVALID_CONTEXT; } while (0)

static int inside(const void *pointer, size_t count, int device) {
    const char *at = pointer;
    for (Block *b = blocks; b; b = b->next)
        if (b->device == device && at >= b->start && at + count <= b->start + b->size) return 1;
    return 0;
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static void perform(Work *w) {
    if (w->kind == COPY) memcpy(w->to, w->from, w->count);
    else if (w->kind == CALL) w->call(w->argument);
    else { w->event->time_ms = now_ms(); w->event->done = 1; }
}

static void add(Stream *s, Work work) {
    Work *w = malloc(sizeof work);
    *w = work;
    w->next = 0;
    if (s->last) s->last->next = w; else s->first = w;
    s->last = w;
}

static Stream *stream_of(void *handle) { return (uintptr_t)handle <= 2 ? &default_stream : handle; }

static void finish(Stream *s) {
    while (s->first) {
        Work *w = s->first;
        s->first = w->next;
        if (!s->first) s->last = 0;
        perform(w);
        free(w);
    }
}

static void finish_all(void) { for (Stream *s = streams; s; s = s->next) if (!s->capturing) finish(s); }

int standin_enqueue(void *stream, work_t call, void *argument) {
    add(stream_of(stream), (Work){.kind = CALL, .call = call, .argument = argument});
    return SUCCESS;
}

/* The driver: start, devices, contexts. */
int cuInit(unsigned flags) { (void)flags; GUARD("cuInit"); return num_devices ? SUCCESS : NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = driver_version; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = num_devices; return SUCCESS; }
int cuDeviceGet(int *device, int index) { *device = index; return index < num_devices ? SUCCESS : 101; }
int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "Stand-in GPU %d", device);
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : attribute == 41 ? 1 : 0; /* capability 8.9; UVA */
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return SUCCESS; }
int cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = (size_t)8 << 30; return SUCCESS; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    GUARD("cuDevicePrimaryCtxRetain");
    retained++;
    *context = &context_object;
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; retained--; return SUCCESS; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device; *flags = 0; *active = retained > 0; return SUCCESS;
}
int cuCtxPushCurrent_v2(void *context) { (void)context; context_depth++; pushed++; return SUCCESS; }
int cuCtxPopCurrent_v2(void **context) {
    if (!context_depth) return INVALID_CONTEXT;
    context_depth--;
    if (context) *context = &context_object;
    return SUCCESS;
}
int cuCtxSetCurrent(void *context) { context_depth = context != 0; return SUCCESS; }
int cuCtxGetCurrent(void **context) { *context = context_depth ? &context_object : 0; return SUCCESS; }
int cuCtxGetDevice(int *device) { *device = 0; return context_depth ? SUCCESS : INVALID_CONTEXT; }
int cuCtxGetApiVersion(void *context, unsigned *version) { (void)context; *version = 3020; return SUCCESS; }
int cuCtxSynchronize(void) { finish_all(); return SUCCESS; }

/* Memory. */
static int allocate(void **pointer, size_t bytes, int device) {
    if (!bytes) return INVALID_VALUE;
    Block *b = malloc(sizeof *b);
    *b = (Block){aligned_alloc(256, (bytes + 255) & ~(size_t)255), bytes, device, 0};
    if (!b->start) return OUT_OF_MEMORY;
    memset(b->start, 0xA5, bytes); /* what nobody wrote must not look like zeros */
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
    *pointer = b->start;
    return SUCCESS;
}
static int release(void *pointer, int device) {
    finish_all();
    pthread_mutex_lock(&lock);
    for (Block **at = &blocks; *at; at = &(*at)->next)
        if ((*at)->start == pointer && (*at)->device == device) {
            Block *gone = *at;
            *at = gone->next;
            pthread_mutex_unlock(&lock);
            free(gone->start);
            free(gone);
            return SUCCESS;
        }
    pthread_mutex_unlock(&lock);
    return INVALID_VALUE;
}
int cuPointerGetAttribute(void *value, int attribute, void *pointer) {
    pthread_mutex_lock(&lock);
    Block *b = blocks;
    while (b && ((char *)pointer < b->start || (char *)pointer >= b->start + b->size)) b = b->next;
    int device = b && b->device;
    pthread_mutex_unlock(&lock);
    if (attribute != 2) return INVALID_VALUE; /* asked for the kind of memory alone */
    *(int *)value = device ? 2 : 1;
    return SUCCESS;
}
int cuMemAlloc_v2(void **pointer, size_t bytes) { NEED_CONTEXT("cuMemAlloc"); return allocate(pointer, bytes, 1); }
int cuMemFree_v2(void *pointer) { NEED_CONTEXT("cuMemFree"); return release(pointer, 1); }
int cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    (void)flags;
    NEED_CONTEXT("cuMemHostAlloc");
    return allocate(pointer, bytes, 0);
}
int cuMemFreeHost(void *pointer) { NEED_CONTEXT("cuMemFreeHost"); return release(pointer, 0); }
int cuMemcpyHtoD_v2(void *to, const void *from, size_t bytes) {
    finish_all();
    memcpy(to, from, bytes);
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    NEED_CONTEXT("cuMemcpyHtoDAsync");
    if (!inside(to, bytes, 1)) return INVALID_VALUE;
    add(stream_of(stream), (Work){.kind = COPY, .to = to, .from = from, .count = bytes});
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    NEED_CONTEXT("cuMemcpyDtoHAsync");
    if (!inside(from, bytes, 1)) return INVALID_VALUE;
    add(stream_of(stream), (Work){.kind = COPY, .to = to, .from = from, .count = bytes});
    return SUCCESS;
}

/* Streams and events. */
int cuStreamCreate(void **stream, unsigned flags) {
    (void)flags;
    NEED_CONTEXT("cuStreamCreate");
    Stream *s = calloc(1, sizeof *s);
    s->next = streams;
    streams = s;
    live_streams++;
    *stream = s;
    return SUCCESS;
}
int cuStreamDestroy_v2(void *stream) {
    for (Stream **at = &streams; *at; at = &(*at)->next)
        if (*at == stream) {
            finish(stream);
            *at = ((Stream *)stream)->next;
            free(stream);
            live_streams--;
            return SUCCESS;
        }
    return INVALID_VALUE;
}
int cuStreamSynchronize(void *stream) {
    NEED_CONTEXT("cuStreamSynchronize");
    finish(stream_of(stream));
    return SUCCESS;
}
int cuEventCreate(void **event, unsigned flags) {
    (void)flags;
    NEED_CONTEXT("cuEventCreate");
    *event = calloc(1, sizeof(Event));
    live_events++;
    return SUCCESS;
}
int cuEventRecord(void *event, void *stream) {
    ((Event *)event)->done = 0;
    add(stream_of(stream), (Work){.kind = RECORD, .event = event});
    return SUCCESS;
}
int cuEventQuery(void *event) { return ((Event *)event)->done ? SUCCESS : NOT_READY; }
int cuEventSynchronize(void *event) { if (!((Event *)event)->done) finish_all(); return SUCCESS; }
int cuEventElapsedTime_v2(float *ms, void *from, void *to) {
    Event *a = from, *b = to;
    if (!a->done || !b->done) return NOT_READY;
    *ms = (float)(b->time_ms - a->time_ms);
    return SUCCESS;
}
int cuEventElapsedTime(float *ms, void *from, void *to) { return cuEventElapsedTime_v2(ms, from, to); }
int cuEventDestroy_v2(void *event) { finish_all(); free(event); live_events--; return SUCCESS; }

/* Graphs: a captured stream's work, to be added to a stream again. */
int cuStreamBeginCapture_v2(void *stream, int mode) {
    (void)mode;
    Stream *s = stream_of(stream);
    GUARD("cuStreamBeginCapture");
    finish(s);
    s->capturing = 1;
    return SUCCESS;
}
int cuStreamEndCapture(void *stream, void **graph) {
    Stream *s = stream_of(stream), *g = calloc(1, sizeof *g);
    g->first = s->first;
    s->first = s->last = 0;
    s->capturing = 0;
    live_graphs++;
    *graph = g;
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    (void)flags;
    Stream *copy = calloc(1, sizeof *copy);
    for (Work *w = ((Stream *)graph)->first; w; w = w->next) add(copy, *w);
    live_graphs++;
    *exec = copy;
    return SUCCESS;
}
int cuGraphLaunch(void *exec, void *stream) {
    NEED_CONTEXT("cuGraphLaunch");
    for (Work *w = ((Stream *)exec)->first; w; w = w->next) add(stream_of(stream), *w);
    return SUCCESS;
}
static int drop_graph(Stream *g) {
    while (g->first) { Work *w = g->first; g->first = w->next; free(w); }
    free(g);
    live_graphs--;
    return SUCCESS;
}
int cuGraphExecDestroy(void *exec) { return drop_graph(exec); }
int cuGraphDestroy(void *graph) { return drop_graph(graph); }

/* Names. */
int cuGetErrorName(int code, const char **text) {
    *text = code == SUCCESS ? "CUDA_SUCCESS" : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR_STANDIN";
    return SUCCESS;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : "an error that a test ordered";
    return SUCCESS;
}
int cuGetProcAddress_v2(const char *name, void **address, int version, uint64_t flags, int *status) {
    static const char *suffixes[] = {"_v3", "_v2", ""};
    char full[128];
    (void)version; (void)flags;
    *address = 0;
    for (int i = 0; i < 3 && !*address; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        *address = dlsym(RTLD_DEFAULT, full);
    }
    if (status) *status = *address ? 0 : 1;
    return *address ? SUCCESS : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **address, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, address, version, flags, 0);
}

/* What pycuda links against and no test of ours calls. */
#define X(name) int name(void) { return NOT_SUPPORTED; }
X(cuArray3DCreate_v2) X(cuArray3DGetDescriptor_v2) X(cuArrayCreate_v2) X(cuArrayDestroy)
X(cuArrayGetDescriptor_v2) X(cuCtxAttach) X(cuCtxCreate_v4) X(cuCtxDetach) X(cuCtxDisablePeerAccess)
X(cuCtxEnablePeerAccess) X(cuCtxGetCacheConfig) X(cuCtxGetLimit) X(cuCtxGetSharedMemConfig)
X(cuCtxSetCacheConfig) X(cuCtxSetLimit) X(cuCtxSetSharedMemConfig) X(cuDeviceCanAccessPeer)
X(cuDeviceComputeCapability) X(cuDeviceGetByPCIBusId) X(cuDeviceGetPCIBusId) X(cuFuncGetAttribute)
X(cuFuncSetAttribute) X(cuFuncSetBlockShape) X(cuFuncSetCacheConfig) X(cuFuncSetSharedSize)
X(cuIpcCloseMemHandle) X(cuIpcGetEventHandle) X(cuIpcGetMemHandle) X(cuIpcOpenEventHandle)
X(cuIpcOpenMemHandle_v2) X(cuLaunch) X(cuLaunchGrid) X(cuLaunchGridAsync) X(cuLaunchKernel)
X(cuLinkAddData_v2) X(cuLinkAddFile_v2) X(cuLinkComplete) X(cuLinkCreate_v2) X(cuLinkDestroy)
X(cuMemAllocManaged) X(cuMemAllocPitch_v2) X(cuMemGetAddressRange_v2) X(cuMemHostGetDevicePointer_v2)
X(cuMemHostGetFlags) X(cuMemHostRegister_v2) X(cuMemHostUnregister) X(cuMemcpy2DAsync_v2)
X(cuMemcpy2DUnaligned_v2) X(cuMemcpy2D_v2) X(cuMemcpy3DAsync_v2) X(cuMemcpy3DPeer)
X(cuMemcpy3DPeerAsync) X(cuMemcpy3D_v2) X(cuMemcpyAtoA_v2) X(cuMemcpyAtoD_v2) X(cuMemcpyAtoH_v2)
X(cuMemcpyDtoA_v2) X(cuMemcpyDtoDAsync_v2) X(cuMemcpyDtoD_v2) X(cuMemcpyDtoH_v2) X(cuMemcpyHtoA_v2)
X(cuMemcpyPeer) X(cuMemcpyPeerAsync) X(cuMemsetD16Async) X(cuMemsetD16_v2)
X(cuMemsetD2D16Async) X(cuMemsetD2D16_v2) X(cuMemsetD2D32Async) X(cuMemsetD2D32_v2) X(cuMemsetD2D8Async)
X(cuMemsetD2D8_v2) X(cuMemsetD32Async) X(cuMemsetD32_v2) X(cuMemsetD8Async) X(cuMemsetD8_v2)
X(cuModuleGetFunction) X(cuModuleGetGlobal_v2) X(cuModuleGetSurfRef) X(cuModuleGetTexRef)
X(cuModuleLoad) X(cuModuleLoadData) X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuParamSetSize)
X(cuParamSetTexRef) X(cuParamSetf) X(cuParamSeti) X(cuParamSetv) X(cuProfilerInitialize)
X(cuProfilerStart) X(cuProfilerStop) X(cuStreamAttachMemAsync) X(cuStreamQuery) X(cuStreamWaitEvent)
X(cuSurfRefGetArray) X(cuSurfRefSetArray) X(cuTexRefCreate) X(cuTexRefDestroy) X(cuTexRefGetAddressMode)
X(cuTexRefGetAddress_v2) X(cuTexRefGetArray) X(cuTexRefGetFilterMode) X(cuTexRefGetFlags)
X(cuTexRefGetFormat) X(cuTexRefSetAddress2D_v3) X(cuTexRefSetAddressMode) X(cuTexRefSetAddress_v2)
X(cuTexRefSetArray) X(cuTexRefSetFilterMode) X(cuTexRefSetFlags) X(cuTexRefSetFormat)
