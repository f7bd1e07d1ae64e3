// The entry points of the shared library: the C functions that the torch binding calls, the XLA handlers that JAX calls,
// the choice of an instruction set, and the threads.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "problem.h"
#include "third_party/xla/ffi/api/c_api.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace isa_baseline {
extern const ugmm::Kernels kKernels;
}
#ifdef UGMM_X86
namespace isa_avx2 {
extern const ugmm::Kernels kKernels;
}
namespace isa_avx512 {
extern const ugmm::Kernels kKernels;
}
#endif

namespace {

using ugmm::Gradients;
using ugmm::Kernels;
using ugmm::Pool;
using ugmm::Problem;

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
};

// The best set that this processor has; UGMM_PPL_ISA=baseline|avx2|avx512 asks for a lesser one. "none": not even SSE4.1.
InstructionSet choose() {
  std::vector<InstructionSet> known = {{"baseline", &isa_baseline::kKernels}};
#ifdef UGMM_X86
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("sse4.1")) return {"none", nullptr};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) known.push_back({"avx2", &isa_avx2::kKernels});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
    known.push_back({"avx512", &isa_avx512::kKernels});
#endif
  const char* wanted = std::getenv("UGMM_PPL_ISA");
  for (const InstructionSet& set : known)
    if (wanted != nullptr && std::strcmp(wanted, set.name) == 0) return set;
  return known.back();
}

const InstructionSet& chosen() {
  static const InstructionSet set = choose();
  return set;
}

class OpenMP final : public Pool {  // the threads that torch uses too: one OpenMP runtime per process
 public:
  explicit OpenMP(int threads) : threads_(std::max(1, threads)) {}
  int threads() const override { return threads_; }
  void run(int64_t count, const std::function<void(int64_t)>& task) override {
#ifdef _OPENMP
    if (threads_ > 1 && count > 1) {
      std::atomic<bool> failed{false};
      std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
      for (int64_t i = 0; i < count; ++i) {
        try {
          if (!failed) task(i);
        } catch (...) {
          if (!failed.exchange(true)) error = std::current_exception();
        }
      }
      if (failed) std::rethrow_exception(error);
      return;
    }
#endif
    for (int64_t i = 0; i < count; ++i) task(i);
  }

 private:
  int threads_;
};

class XlaPool final : public Pool {  // the threads of the XLA computation that calls us
 public:
  XlaPool(const XLA_FFI_Api* api, XLA_FFI_ExecutionContext* ctx) : api_(api), ctx_(ctx) {
    int64_t count = 1;
    XLA_FFI_ThreadPool_NumThreads_Args args{};
    args.struct_size = XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE;
    args.ctx = ctx;
    args.num_threads = &count;
    if (XLA_FFI_Error* error = api->XLA_FFI_ThreadPool_NumThreads(&args)) {
      destroy(error);
      count = 1;
    }
    threads_ = static_cast<int>(std::clamp<int64_t>(count, 1, 1024));
  }
  int threads() const override { return threads_; }

  // The calling thread takes tasks too, so that it never waits for a helper that has not begun.
  void run(int64_t count, const std::function<void(int64_t)>& task) override {
    if (threads_ == 1 || count <= 1) {
      for (int64_t i = 0; i < count; ++i) task(i);
      return;
    }
    auto work = std::make_shared<Work>();
    work->task = &task;
    work->count = count;
    for (int64_t helper = 1; helper < std::min<int64_t>(threads_, count); ++helper) {
      auto* handle = new std::shared_ptr<Work>(work);
      XLA_FFI_ThreadPool_Schedule_Args args{};
      args.struct_size = XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE;
      args.ctx = ctx_;
      args.task = [](void* data) {
        std::unique_ptr<std::shared_ptr<Work>> own(static_cast<std::shared_ptr<Work>*>(data));
        (*own)->take();
      };
      args.data = handle;
      if (XLA_FFI_Error* error = api_->XLA_FFI_ThreadPool_Schedule(&args)) {
        destroy(error);
        delete handle;
        break;
      }
    }
    work->take();
    work->wait();
    if (work->error) std::rethrow_exception(work->error);
  }

 private:
  struct Work {
    const std::function<void(int64_t)>* task;
    int64_t count;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;

    void take() {
      for (int64_t i = next++; i < count; i = next++) {
        try {
          (*task)(i);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(mutex);
          error = std::current_exception();
        }
        if (++done == count) {
          const std::lock_guard<std::mutex> lock(mutex);
          finished.notify_all();
        }
      }
    }
    void wait() {
      for (int spin = 0; spin < 20000 && done < count; ++spin) {
      }
      std::unique_lock<std::mutex> lock(mutex);
      finished.wait(lock, [&] { return done == count; });
    }
  };

  void destroy(XLA_FFI_Error* error) const {
    XLA_FFI_Error_Destroy_Args args{};
    args.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE;
    args.error = error;
    api_->XLA_FFI_Error_Destroy(&args);
  }

  const XLA_FFI_Api* api_;
  XLA_FFI_ExecutionContext* ctx_;
  int threads_;
};

// Offsets of all positions along the given axes, the last one fastest.
std::vector<int64_t> offsets(const std::vector<int64_t>& axes, const int64_t* dims, const int64_t* strides) {
  std::vector<int64_t> result = {0};
  for (const int64_t axis : axes) {
    std::vector<int64_t> longer;
    longer.reserve(result.size() * dims[axis]);
    for (const int64_t base : result)
      for (int64_t i = 0; i < dims[axis]; ++i) longer.push_back(base + i * strides[axis]);
    result = std::move(longer);
  }
  return result;
}

// One array of a call as it comes: its strides over the leading axes (0 where it is broadcast) and over its own.
struct Array {
  void* data;
  const int64_t* strides;
  int64_t size;
};

// The call of a kernel from arrays: which leading axes are groups and which are rows, and all offsets.
class Call {
 public:
  // dims: leading axes, J, K. Strides of x, out: leading, then 1 more; of parameters: leading, then 2 more.
  Call(int64_t leading, const int64_t* dims, const Array& x, const Array* parameters, const Array& out,
       const Array* upstream, const Array* gradients)
      : dims_(dims), leading_(leading) {
    for (int64_t axis = 0; axis < leading; ++axis) {
      bool varies = false;
      for (int i = 0; i < 3; ++i) {
        varies |= parameters[i].data != nullptr && parameters[i].strides[axis] != 0;
        varies |= gradients != nullptr && gradients[i + 1].data != nullptr && gradients[i + 1].strides[axis] != 0;
      }
      (varies && dims[axis] > 1 ? groups_ : rows_).push_back(axis);
    }
    problem.groups = product(groups_);
    problem.rows = product(rows_);
    problem.neurons = dims[leading];
    problem.inputs = dims[leading + 1];
    problem.x = rows(x);
    problem.loc = parameter(parameters[0]);
    problem.scale = parameter(parameters[1]);
    problem.log_weights = parameter(parameters[2]);
    problem.out = activations(out);
    if (gradients == nullptr) return;
    wanted.upstream = activations(*upstream);
    wanted.x = rows(gradients[0]);
    wanted.loc = parameter(gradients[1]);
    wanted.scale = parameter(gradients[2]);
    wanted.log_weights = parameter(gradients[3]);
    wanted.x_shared = shared(gradients[0], groups_) || shared(gradients[0], rows_);
    wanted.parameters_shared = false;
    for (int i = 1; i < 4; ++i) wanted.parameters_shared |= gradients[i].data != nullptr && shared(gradients[i], groups_);
  }
  Call(const Call&) = delete;

  Problem problem{};
  Gradients wanted{};

 private:
  int64_t product(const std::vector<int64_t>& axes) const {
    int64_t result = 1;
    for (const int64_t axis : axes) result *= dims_[axis];
    return result;
  }
  bool shared(const Array& array, const std::vector<int64_t>& axes) const {
    if (array.data == nullptr) return false;
    return std::any_of(axes.begin(), axes.end(), [&](int64_t axis) { return array.strides[axis] == 0 && dims_[axis] > 1; });
  }
  ugmm::Offsets keep(const std::vector<int64_t>& axes, const Array& array) {
    if (array.data == nullptr || axes.empty()) return {nullptr, 0};
    if (axes.size() == 1) return {nullptr, array.strides[axes[0]]};
    kept_.push_back(std::make_unique<std::vector<int64_t>>(offsets(axes, dims_, array.strides)));
    return {kept_.back()->data(), 0};
  }
  ugmm::Rows rows(const Array& a) {
    return {a.data, keep(groups_, a), keep(rows_, a), a.data == nullptr ? 0 : a.strides[leading_], a.size};
  }
  ugmm::Parameter parameter(const Array& a) {
    const bool there = a.data != nullptr;
    return {a.data, keep(groups_, a), there ? a.strides[leading_] : 0, there ? a.strides[leading_ + 1] : 0, a.size};
  }
  ugmm::Activations activations(const Array& a) { return {a.data, keep(groups_, a), keep(rows_, a)}; }

  const int64_t* dims_;
  int64_t leading_;
  std::vector<int64_t> groups_, rows_;
  std::vector<std::unique_ptr<std::vector<int64_t>>> kept_;
};

class OneThread final : public Pool {
 public:
  int threads() const override { return 1; }
  void run(int64_t count, const std::function<void(int64_t)>& task) override {
    for (int64_t i = 0; i < count; ++i) task(i);
  }
};

// Waking other threads costs more than they gain below some tens of microseconds, and much more on a busy machine.
Pool& worthwhile(const Problem& p, Pool& pool) {
  static OneThread one;
  return p.groups * p.rows * p.neurons * p.inputs < (1 << 17) ? one : pool;
}

void forward(bool is_double, const Problem& p, Pool& all) {
  if (p.groups * p.rows * p.neurons == 0) return;
  Pool& pool = worthwhile(p, all);
  (is_double ? chosen().kernels->forward_double : chosen().kernels->forward_float)(p, pool);
}

void backward(bool is_double, const Problem& p, const Gradients& g, Pool& all) {
  if (p.groups * p.rows * p.neurons == 0) {
    const size_t item = is_double ? sizeof(double) : sizeof(float);
    if (g.x.data != nullptr) std::memset(g.x.data, 0, item * g.x.size);
    for (const auto* a : {&g.loc, &g.scale, &g.log_weights})
      if (a->data != nullptr) std::memset(a->data, 0, item * a->size);
    return;
  }
  Pool& pool = worthwhile(p, all);
  (is_double ? chosen().kernels->backward_double : chosen().kernels->backward_float)(p, g, pool);
}

// ------------------------------------------------------------------------------------------------- XLA handlers

XLA_FFI_Error* fail(XLA_FFI_CallFrame* frame, XLA_FFI_Error_Code code, const std::string& message) {
  XLA_FFI_Error_Create_Args args{};
  args.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE;
  args.message = message.c_str();
  args.errc = code;
  return frame->api->XLA_FFI_Error_Create(&args);
}

// XLA asks every handler for the version it was written against.
bool answer_metadata(XLA_FFI_CallFrame* frame) {
  if (frame->extension_start == nullptr || frame->extension_start->type != XLA_FFI_Extension_Metadata) return false;
  auto* extension = reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start);
  extension->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  extension->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return true;
}

// Contiguous buffers with leading axes of size 1 where they are broadcast: strides over all leading axes of the call.
class Buffers {
 public:
  explicit Buffers(const XLA_FFI_Buffer* out) : leading_(out->rank - 1) {}
  // Where a leading axis has size 1 in `dims`, takes the size that the buffer has.
  void widen(std::vector<int64_t>& dims, const XLA_FFI_Buffer* buffer, int64_t own) const {
    for (int64_t axis = 0; axis < buffer->rank - own; ++axis) {
      int64_t& size = dims[leading_ - (buffer->rank - own) + axis];
      if (size == 1) size = buffer->dims[axis];
    }
  }
  // A result that is not wanted is an empty buffer, of however many axes `jax.vmap` gave it.
  Array wanted(const XLA_FFI_Buffer* buffer, int64_t own) {
    const Array result = array(buffer, own);
    return result.size == 0 ? Array{nullptr, nullptr, 0} : result;
  }
  Array array(const XLA_FFI_Buffer* buffer, int64_t own) {
    auto strides = std::make_unique<std::vector<int64_t>>(leading_ + own, 0);
    int64_t size = 1;
    for (int64_t axis = buffer->rank - 1; axis >= 0; --axis) {
      const int64_t place = leading_ + own - buffer->rank + axis;
      if (place >= 0) (*strides)[place] = buffer->dims[axis] == 1 ? 0 : size;
      size *= buffer->dims[axis];
    }
    kept_.push_back(std::move(strides));
    return {buffer->data, kept_.back()->data(), size};
  }

 private:
  int64_t leading_;
  std::vector<std::unique_ptr<std::vector<int64_t>>> kept_;
};

XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame, bool is_backward) {
  if (answer_metadata(frame)) return nullptr;
  try {
    auto argument = [&](int64_t i) { return static_cast<const XLA_FFI_Buffer*>(frame->args.args[i]); };
    auto result = [&](int64_t i) { return static_cast<const XLA_FFI_Buffer*>(frame->rets.rets[i]); };
    if (frame->args.size != (is_backward ? 6 : 4) || frame->rets.size != (is_backward ? 4 : 1))
      return fail(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "ugmm_ppl: wrong number of buffers");
    const XLA_FFI_DataType dtype = argument(0)->dtype;
    if (dtype != XLA_FFI_DataType_F32 && dtype != XLA_FFI_DataType_F64)
      return fail(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "ugmm_ppl: buffers must be float32 or float64");
    const XLA_FFI_Buffer* out = is_backward ? argument(4) : result(0);
    Buffers buffers(out);
    std::vector<int64_t> dims(out->dims, out->dims + out->rank);
    if (is_backward) {  // a may be broadcast along an axis of the gradients
      buffers.widen(dims, argument(5), 1), buffers.widen(dims, argument(0), 1);
      for (int i = 1; i < 4; ++i) buffers.widen(dims, argument(i), 2);
    }
    const int64_t inputs = argument(2)->dims[argument(2)->rank - 1];
    const int64_t given = argument(0)->dims[argument(0)->rank - 1];  // 1 in a forward pass: shared by all components
    if (given != inputs && (is_backward || given != 1))
      return fail(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, "ugmm_ppl: x must have as many inputs as the parameters");
    dims.push_back(inputs);
    const Array x = buffers.array(argument(0), 1), a = buffers.array(out, 1);
    const Array parameters[3] = {buffers.array(argument(1), 2), buffers.array(argument(2), 2),
                                 buffers.array(argument(3), 2)};
    XlaPool pool(frame->api, frame->ctx);
    if (is_backward) {
      const Array upstream = buffers.array(argument(5), 1);
      const Array gradients[4] = {buffers.wanted(result(0), 1), buffers.wanted(result(1), 2),
                                  buffers.wanted(result(2), 2), buffers.wanted(result(3), 2)};
      Call call(out->rank - 1, dims.data(), x, parameters, a, &upstream, gradients);
      backward(dtype == XLA_FFI_DataType_F64, call.problem, call.wanted, pool);
    } else {
      Call call(out->rank - 1, dims.data(), x, parameters, a, nullptr, nullptr);
      forward(dtype == XLA_FFI_DataType_F64, call.problem, pool);
    }
  } catch (const std::bad_alloc&) {
    return fail(frame, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "ugmm_ppl: out of memory");
  } catch (const std::exception& error) {
    return fail(frame, XLA_FFI_Error_Code_INTERNAL, std::string("ugmm_ppl: ") + error.what());
  }
  return nullptr;
}

}  // namespace

#define UGMM_EXPORT extern "C" __attribute__((visibility("default")))

UGMM_EXPORT const char* ugmm_instruction_set() { return chosen().name; }

UGMM_EXPORT int ugmm_openmp() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

// Strides of `strides` one array after the other: x (leading + 1), loc, scale, log_weights (leading + 2 each); `out` is
// contiguous. loc is null for tied means. Returns 0, or 1 when memory is out.
UGMM_EXPORT int ugmm_forward(int is_double, int threads, int64_t leading, const int64_t* dims, const int64_t* strides,
                             void* x, void* loc, void* scale, void* log_weights, void* out) {
  try {
    std::vector<int64_t> contiguous(leading + 1, 1);
    for (int64_t axis = leading - 1; axis >= 0; --axis) contiguous[axis] = contiguous[axis + 1] * dims[axis + 1];
    const int64_t width = leading + 2;
    const int64_t* rest = strides + leading + 1;
    const Array parameters[3] = {{loc, rest, 0}, {scale, rest + width, 0}, {log_weights, rest + 2 * width, 0}};
    Call call(leading, dims, {x, strides, 0}, parameters, {out, contiguous.data(), 0}, nullptr, nullptr);
    OpenMP pool(threads);
    forward(is_double != 0, call.problem, pool);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// As `ugmm_forward`; then the strides of upstream (leading + 1), and of the gradients dx, dloc, dscale, dlog_weights, with
// their sizes. A gradient that is not wanted is null.
UGMM_EXPORT int ugmm_backward(int is_double, int threads, int64_t leading, const int64_t* dims, const int64_t* strides,
                              const int64_t* sizes, void* x, void* loc, void* scale, void* log_weights, void* out,
                              void* upstream, void* dx, void* dloc, void* dscale, void* dlog_weights) {
  try {
    std::vector<int64_t> contiguous(leading + 1, 1);
    for (int64_t axis = leading - 1; axis >= 0; --axis) contiguous[axis] = contiguous[axis + 1] * dims[axis + 1];
    const int64_t width = leading + 2;
    const int64_t* rest = strides + leading + 1;
    const Array parameters[3] = {{loc, rest, 0}, {scale, rest + width, 0}, {log_weights, rest + 2 * width, 0}};
    rest += 3 * width;
    const Array gradients[4] = {{dx, rest, sizes[0]},
                                {dloc, rest + leading + 1, sizes[1]},
                                {dscale, rest + leading + 1 + width, sizes[2]},
                                {dlog_weights, rest + leading + 1 + 2 * width, sizes[3]}};
    const Array after{upstream, contiguous.data(), 0};
    Call call(leading, dims, {x, strides, 0}, parameters, {out, contiguous.data(), 0}, &after, gradients);
    OpenMP pool(threads);
    backward(is_double != 0, call.problem, call.wanted, pool);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// 2^from of a multiple of 16 numbers, `repeats` times over, on one thread.
UGMM_EXPORT void ugmm_exponentials(int is_double, int64_t count, int64_t repeats, const void* from, void* to) {
  const Kernels& kernels = *chosen().kernels;
  if (is_double != 0)
    kernels.exponentials_double(static_cast<const double*>(from), static_cast<double*>(to), count, repeats);
  else
    kernels.exponentials_float(static_cast<const float*>(from), static_cast<float*>(to), count, repeats);
}

UGMM_EXPORT XLA_FFI_Error* ugmm_xla_forward(XLA_FFI_CallFrame* frame) { return handle(frame, false); }
UGMM_EXPORT XLA_FFI_Error* ugmm_xla_backward(XLA_FFI_CallFrame* frame) { return handle(frame, true); }
