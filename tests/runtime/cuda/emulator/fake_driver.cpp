// A stand-in for libcuda.so.1: one device whose memory is host memory and whose kernels run in the emulator, so
// that PyCUDA and the shipped launcher run end to end, unchanged, on a machine without a GPU (LD_PRELOAD).
//
// It is as unhelpful as a driver may be. Work on a stream is not done until something waits for it, so a result
// read too early, or a buffer reused too early, shows. New memory is filled with 0xA5. Copies and kernels are
// held to the bounds of their allocations, and a kernel's argument block to its exact size. Calls that are not
// modelled say so and fail.
//
//   LINEWARD_FAKE_CAPABILITY=87   compute capability (default 87)
//   LINEWARD_FAKE_DEVICES=0       how many devices there are (default 1)
//   LINEWARD_FAKE_REFUSE=1        how many modules to refuse before one loads (default 0)
//   LINEWARD_FAKE_MEMORY=1000000  bytes of device memory (default 8 GiB)
#define LINEWARD_EMULATOR
#include "fused_max.cu"

#include <cstdio>
#include <cstdlib>
#include <map>

namespace {

typedef int Result;  // CUresult; the values used here are those of cuda.h
typedef unsigned long long Pointer;
constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100, kInvalidDevice = 101,
                 kInvalidImage = 200, kNotFound = 500, kNotReady = 600, kLaunchFailed = 719, kNotSupported = 801;

size_t setting(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// ---- memory

std::map<Pointer, size_t> allocations;
size_t bytes_allocated = 0, bytes_to_host = 0, bytes_to_device = 0, modules_refused = 0;
int contexts_retained = 0, contexts_current = 0;

bool inside(Pointer at, size_t bytes) {
  for (auto& a : allocations)
    if (at >= a.first && at + bytes <= a.first + a.second) return true;
  std::fprintf(stderr, "fake driver: access outside every allocation\n");
  return false;
}
void* filled(size_t bytes) {
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return std::memset(memory, 0xA5, bytes);
}

// ---- streams: queues of work that nobody has waited for yet

struct Stream {
  std::deque<std::function<Result()>> pending;
  size_t finished = 0;
};
struct Event {
  Stream* stream = nullptr;
  size_t position = 0;
};
Stream default_stream;
std::set<Stream*> streams{&default_stream};
Result sticky = kSuccess;

Stream* stream_of(void* handle) { return handle ? (Stream*)handle : &default_stream; }
size_t submitted(Stream* s) { return s->finished + s->pending.size(); }

Result run_until(Stream* s, size_t position) {
  for (; s->finished < position && !s->pending.empty(); ++s->finished) {
    auto work = std::move(s->pending.front());
    s->pending.pop_front();
    const Result r = work();
    if (r != kSuccess) sticky = r;
  }
  return sticky;
}
Result run_all() {
  for (Stream* s : streams) run_until(s, submitted(s));
  return sticky;
}
Result submit(void* stream, std::function<Result()> work) {
  stream_of(stream)->pending.push_back(std::move(work));
  return sticky;
}

Result copy(void* to, const void* from, size_t bytes, Pointer device_side, size_t& counter) {
  if (!inside(device_side, bytes)) return kInvalidValue;
  std::memcpy(to, from, bytes);
  counter += bytes;
  return kSuccess;
}
Result fill(Pointer to, unsigned value, size_t words) {
  if (!inside(to, 4 * words)) return kInvalidValue;
  std::fill((unsigned*)to, (unsigned*)to + words, value);
  return kSuccess;
}

// ---- kernels

template <typename Arguments> Arguments read(const std::vector<char>& block) {
  Arguments arguments;
  std::memcpy(&arguments, block.data(), sizeof arguments);
  return arguments;
}
struct Narrow { Pointer from; int n, width, padded, pad; Pointer to; };
struct Max { Pointer queries, bank; int nq, nb, width, tiles; Pointer best; };
struct Rescore { Pointer queries, bank, best; int nq, width; Pointer similarity, index; };

struct Kernel {
  size_t argument_bytes;
  int threads;  // that the kernel insists on; 0: any
  std::function<void(const std::vector<char>&)> run;
};
std::map<std::string, Kernel> kernels = {
    {"narrow_f32", {sizeof(Narrow), 0, [](auto& block) {
       const auto a = read<Narrow>(block);
       narrow_f32((const float*)a.from, a.n, a.width, a.padded, (half_t*)a.to);
     }}},
    {"narrow_f16", {sizeof(Narrow), 0, [](auto& block) {
       const auto a = read<Narrow>(block);
       narrow_f16((const half_t*)a.from, a.n, a.width, a.padded, (half_t*)a.to);
     }}},
    {"fused_max", {sizeof(Max), kThreads, [](auto& block) {
       const auto a = read<Max>(block);
       fused_max((const half_t*)a.queries, (const half_t*)a.bank, a.nq, a.nb, a.width, a.tiles, (u64*)a.best);
     }}},
    {"rescore_f32", {sizeof(Rescore), 0, [](auto& block) {
       const auto a = read<Rescore>(block);
       rescore_f32((const float*)a.queries, (const float*)a.bank, (const u64*)a.best, a.nq, a.width,
                   (float*)a.similarity, (int*)a.index);
     }}},
    {"rescore_f16", {sizeof(Rescore), 0, [](auto& block) {
       const auto a = read<Rescore>(block);
       rescore_f16((const half_t*)a.queries, (const float*)a.bank, (const u64*)a.best, a.nq, a.width,
                   (float*)a.similarity, (int*)a.index);
     }}},
};

Result run(const Kernel& kernel, const std::vector<char>& arguments, emulator::Dim grid, int threads) {
  emulator::global_memory.clear();
  for (auto& a : allocations)
    emulator::global_memory.push_back({(uintptr_t)a.first, (uintptr_t)(a.first + a.second)});
  if (emulator::launch([&] { kernel.run(arguments); }, grid, threads)) return kSuccess;
  std::fprintf(stderr, "fake driver: %s\n", emulator::error.c_str());
  return kLaunchFailed;
}

// The argument block that cuLaunchKernel's `extra` list names.
std::vector<char> argument_block(void** extra) {
  const char* begin = nullptr;
  size_t bytes = 0;
  for (; extra && *extra; extra += 2) {
    if (*extra == (void*)1) begin = (const char*)extra[1];   // CU_LAUNCH_PARAM_BUFFER_POINTER
    if (*extra == (void*)2) bytes = *(const size_t*)extra[1];  // CU_LAUNCH_PARAM_BUFFER_SIZE
  }
  return begin ? std::vector<char>(begin, begin + bytes) : std::vector<char>();
}

int the_context, the_module;

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) Result

// What a test may ask about the run so far.
extern "C" __attribute__((visibility("default"))) size_t lineward_fake_count(const char* what) {
  const std::string w = what;
  return w == "allocated" ? bytes_allocated : w == "to_host" ? bytes_to_host : w == "to_device" ? bytes_to_device
       : w == "contexts" ? (size_t)contexts_retained : w == "current" ? (size_t)contexts_current : w == "refused" ? modules_refused : ~(size_t)0;
}

API cuInit(unsigned) { return setting("LINEWARD_FAKE_DEVICES", 1) ? kSuccess : kNoDevice; }
API cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
API cuDeviceGetCount(int* n) { return *n = (int)setting("LINEWARD_FAKE_DEVICES", 1), kSuccess; }
API cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal ? kInvalidDevice : kSuccess; }
API cuDeviceGetName(char* name, int room, int) { return std::snprintf(name, room, "emulated GPU"), kSuccess; }
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = setting("LINEWARD_FAKE_MEMORY", 8ull << 30), kSuccess; }
API cuDeviceComputeCapability(int* major, int* minor, int) {
  const int capability = (int)setting("LINEWARD_FAKE_CAPABILITY", 87);
  return *major = capability / 10, *minor = capability % 10, kSuccess;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
  constexpr int kMultiprocessors = 16;
  return *value = attribute == kMultiprocessors ? 8 : 1, kSuccess;
}

API cuDevicePrimaryCtxRetain(void** context, int) { return *context = &the_context, ++contexts_retained, kSuccess; }
API cuDevicePrimaryCtxRelease_v2(int) { return --contexts_retained, kSuccess; }
API cuCtxPushCurrent_v2(void*) { return ++contexts_current, kSuccess; }
API cuCtxPopCurrent_v2(void** context) {
  --contexts_current;
  if (context) *context = &the_context;
  return kSuccess;
}
API cuCtxGetDevice(int* device) { return *device = 0, kSuccess; }
API cuCtxGetApiVersion(void*, unsigned* version) { return *version = 13000, kSuccess; }
API cuCtxSynchronize() { return run_all(); }

API cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
  if (modules_refused < setting("LINEWARD_FAKE_REFUSE", 0)) return ++modules_refused, kInvalidImage;
  if (std::memcmp(image, "\x7f" "ELF", 4) && std::memcmp(image, "//", 2)) return kInvalidImage;
  return *module = &the_module, kSuccess;
}
API cuModuleUnload(void*) { return kSuccess; }
API cuModuleGetFunction(void** function, void*, const char* name) {
  auto found = kernels.find(name);
  if (found == kernels.end()) return kNotFound;
  return *function = &found->second, kSuccess;
}

API cuFuncSetBlockShape(void*, int, int, int) { return kSuccess; }  // PyCUDA's; cuLaunchKernel says it again

API cuMemAlloc_v2(Pointer* at, size_t bytes) {
  if (bytes_allocated + bytes > setting("LINEWARD_FAKE_MEMORY", 8ull << 30)) return kOutOfMemory;
  *at = (Pointer)filled(bytes);
  bytes_allocated += allocations[*at] = bytes;
  return kSuccess;
}
API cuMemFree_v2(Pointer at) {
  run_all();
  if (!allocations.count(at)) return kInvalidValue;
  bytes_allocated -= allocations[at];
  allocations.erase(at);
  std::free((void*)at);
  return kSuccess;
}
API cuMemHostAlloc(void** at, size_t bytes, unsigned) { return *at = filled(bytes), kSuccess; }
API cuMemFreeHost(void* at) { return run_all(), std::free(at), kSuccess; }

API cuMemcpyHtoD_v2(Pointer to, const void* from, size_t bytes) {
  run_all();
  return copy((void*)to, from, bytes, to, bytes_to_device);
}
API cuMemcpyDtoH_v2(void* to, Pointer from, size_t bytes) {
  run_all();
  return copy(to, (const void*)from, bytes, from, bytes_to_host);
}
API cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
  return submit(stream, [=] { return copy((void*)to, from, bytes, to, bytes_to_device); });
}
API cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
  return submit(stream, [=] { return copy(to, (const void*)from, bytes, from, bytes_to_host); });
}
API cuMemsetD32Async(Pointer to, unsigned value, size_t words, void* stream) {
  return submit(stream, [=] { return fill(to, value, words); });
}

API cuStreamCreate(void** stream, unsigned) {
  streams.insert((Stream*)(*stream = new Stream));
  return kSuccess;
}
API cuStreamDestroy_v2(void* stream) {
  run_until(stream_of(stream), submitted(stream_of(stream)));
  streams.erase((Stream*)stream);
  delete (Stream*)stream;
  return kSuccess;
}
API cuStreamSynchronize(void* stream) { return run_until(stream_of(stream), submitted(stream_of(stream))); }
API cuEventCreate(void** event, unsigned) { return *event = new Event, kSuccess; }
API cuEventDestroy_v2(void* event) { return delete (Event*)event, kSuccess; }
API cuEventRecord(void* event, void* stream) {
  *(Event*)event = {stream_of(stream), submitted(stream_of(stream))};
  return sticky;
}
API cuEventSynchronize(void* event) {
  const Event& e = *(Event*)event;
  return e.stream ? run_until(e.stream, e.position) : sticky;
}
API cuEventQuery(void* event) {
  const Event& e = *(Event*)event;
  return !e.stream || e.stream->finished >= e.position ? sticky : kNotReady;
}

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned, void* stream, void**, void** extra) {
  const Kernel& kernel = *(const Kernel*)function;
  const std::vector<char> arguments = argument_block(extra);
  if (arguments.size() != kernel.argument_bytes || by != 1 || bz != 1 || gz != 1 || bx % 32 || !gx || !gy ||
      (kernel.threads && (int)bx != kernel.threads)) {
    std::fprintf(stderr, "fake driver: a launch that does not fit its kernel\n");
    return kInvalidValue;
  }
  return submit(stream, [=, &kernel] { return run(kernel, arguments, {gx, gy, 1}, (int)bx); });
}

API cuGetErrorString(Result error, const char** text) {
  static std::string words;
  words = "fake driver error " + std::to_string(error);
  return *text = words.c_str(), kSuccess;
}

#define UNMODELLED(name) \
  API name(...) { return std::fprintf(stderr, "fake driver: " #name " is not modelled\n"), kNotSupported; }
#include "unmodelled.h"
