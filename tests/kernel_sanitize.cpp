// The C functions of the native kernel under the address and undefined-behaviour sanitizers: random shapes, strides and
// broadcast axes in heap buffers of exactly the size they need, compared with plain loops in long double.
// `make sanitize` builds and runs it, once per instruction set.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

extern "C" {
const char* ugmm_instruction_set();
int ugmm_forward(int is_double, int threads, int64_t leading, const int64_t* dims, const int64_t* strides, void* x,
                 void* loc, void* scale, void* log_weights, void* out);
int ugmm_backward(int is_double, int threads, int64_t leading, const int64_t* dims, const int64_t* strides,
                  const int64_t* sizes, void* x, void* loc, void* scale, void* log_weights, void* out, void* upstream,
                  void* dx, void* dloc, void* dscale, void* dlog_weights);
void ugmm_exponentials(int is_double, int64_t count, int64_t repeats, const void* from, void* to);
}

namespace {

using Random = std::mt19937;
constexpr long double kInfinity = std::numeric_limits<long double>::infinity();

int64_t between(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}
bool chance(Random& random, double p) { return std::bernoulli_distribution(p)(random); }

// An array over the axes `dims`; 0 is the stride of an axis that it has not. The buffer ends with its last element.
template <class T>
struct Array {
  std::vector<int64_t> dims, strides;
  int64_t size = 0, start = 0;
  std::unique_ptr<T[]> buffer;

  T* data() const { return buffer == nullptr ? nullptr : buffer.get() + start; }
  T& at(const std::vector<int64_t>& index) const {
    int64_t offset = 0;
    for (size_t axis = 0; axis < index.size(); ++axis) offset += index[axis] * strides[axis];
    return data()[offset];
  }
};

// With `random`: the axes in any order, gaps, and a start that is not aligned. Without: contiguous.
template <class T>
Array<T> make(const std::vector<int64_t>& dims, const std::vector<bool>& has, Random* random) {
  Array<T> array;
  array.dims = dims;
  array.strides.assign(dims.size(), 0);
  std::vector<size_t> order;
  for (size_t axis = dims.size(); axis-- > 0;)
    if (has[axis]) order.push_back(axis);
  int64_t stride = 1, last = 0;
  bool empty = false;
  if (random != nullptr && chance(*random, 0.3)) std::shuffle(order.begin(), order.end(), *random);
  if (random != nullptr && chance(*random, 0.2)) stride = 2;
  if (random != nullptr && chance(*random, 0.3)) array.start = 1;
  for (const size_t axis : order) {
    array.strides[axis] = stride;
    last += (dims[axis] - 1) * stride;
    stride *= dims[axis];
    empty |= dims[axis] == 0;
  }
  array.size = empty ? 0 : last + 1;
  array.buffer.reset(new T[array.start + array.size]);
  return array;
}

void for_each(const std::vector<int64_t>& dims, const std::function<void(const std::vector<int64_t>&)>& body) {
  std::vector<int64_t> index(dims.size(), 0);
  for (const int64_t size : dims)
    if (size == 0) return;
  while (true) {
    body(index);
    size_t axis = dims.size();
    while (axis > 0 && ++index[axis - 1] == dims[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

template <class T>
bool close(T got, long double want, long double largest) {
  const long double tolerance = sizeof(T) == 4 ? 3e-5L : 1e-11L;
  if (std::isinf(want)) return got == want;
  return std::abs(got - want) <= tolerance * std::max(1.0L, largest);
}

template <class T>
bool call(Random& random) {
  std::vector<int64_t> leading(between(random, 0, 3));
  for (int64_t& size : leading) size = chance(random, 0.05) ? 0 : between(random, 1, 4);
  if (!leading.empty() && chance(random, 0.2)) leading.back() = between(random, 20, 300);
  int64_t neurons = chance(random, 0.03) ? 0 : between(random, 1, chance(random, 0.2) ? 40 : 6);
  int64_t inputs = between(random, 1, chance(random, 0.1) ? 200 : 40);
  if (chance(random, 0.03)) {  // large enough for the kernel to use threads
    neurons = between(random, 5, 25), inputs = chance(random, 0.5) ? between(random, 4, 16) : between(random, 60, 140);
    leading = {between(random, 1, 3), 150000 / (neurons * inputs) + 1};
  }
  const size_t depth = leading.size();
  std::vector<int64_t> row = leading, own = leading, result = leading, dims = leading;
  row.push_back(inputs), own.push_back(neurons), own.push_back(inputs), result.push_back(neurons);
  dims.push_back(neurons), dims.push_back(inputs);

  // Which array, and which gradient, has which axis: a gradient may have an axis along which its array is repeated.
  std::vector<bool> has[4], gradient_has[4];
  for (int i = 0; i < 4; ++i) {
    has[i].assign(depth + (i == 0 ? 1 : 2), true);
    for (size_t axis = 0; axis < depth; ++axis) has[i][axis] = chance(random, i == 0 ? 0.7 : 0.3);
    gradient_has[i] = has[i];
    for (size_t axis = 0; axis < depth; ++axis)
      if (chance(random, 0.1)) gradient_has[i][axis] = true;
  }
  Array<T> arrays[4], gradients[4];
  std::normal_distribution<double> normal;
  const double far = chance(random, 0.1) ? 100.0 : 1.0;
  for (int i = 0; i < 4; ++i) {
    const std::vector<int64_t>& shape = i == 0 ? row : own;
    arrays[i] = make<T>(shape, has[i], &random);
    std::fill_n(arrays[i].buffer.get(), arrays[i].start + arrays[i].size, std::numeric_limits<T>::quiet_NaN());
    for_each(shape, [&](const std::vector<int64_t>& index) {
      double value = i == 2 ? std::exp(0.3 * normal(random)) : normal(random);
      if (i == 0) value *= far;
      if (i == 0 && chance(random, 0.02)) value = std::numeric_limits<double>::infinity();
      if (i == 3 && chance(random, 0.05)) value = -std::numeric_limits<double>::infinity();
      arrays[i].at(index) = static_cast<T>(value);
    });
    if (chance(random, 0.8)) gradients[i] = make<T>(shape, gradient_has[i], nullptr);
  }
  if (chance(random, 0.1)) {  // tied means
    arrays[1].buffer.reset(), gradients[1].buffer.reset();
    std::fill(arrays[1].strides.begin(), arrays[1].strides.end(), 0);
  }
  const std::vector<bool> all(depth + 1, true);
  Array<T> out = make<T>(result, all, nullptr), upstream = make<T>(result, all, nullptr);
  for (int64_t i = 0; i < upstream.size; ++i) upstream.buffer[i] = static_cast<T>(normal(random));

  std::vector<int64_t> strides, sizes;
  for (const Array<T>& a : arrays) strides.insert(strides.end(), a.strides.begin(), a.strides.end());
  const int threads = static_cast<int>(between(random, 1, 5));
  if (ugmm_forward(sizeof(T) == 8, threads, depth, dims.data(), strides.data(), arrays[0].data(), arrays[1].data(),
                   arrays[2].data(), arrays[3].data(), out.data()) != 0)
    return false;
  for (int i = 0; i < 4; ++i) {
    gradients[i].strides.resize(depth + (i == 0 ? 1 : 2), 0);
    strides.insert(strides.end(), gradients[i].strides.begin(), gradients[i].strides.end());
    sizes.push_back(gradients[i].data() == nullptr ? 0 : gradients[i].size);
  }
  if (ugmm_backward(sizeof(T) == 8, threads, depth, dims.data(), strides.data(), sizes.data(), arrays[0].data(),
                    arrays[1].data(), arrays[2].data(), arrays[3].data(), out.data(), upstream.data(),
                    gradients[0].data(), gradients[1].data(), gradients[2].data(), gradients[3].data()) != 0)
    return false;

  // The same by plain loops.
  std::vector<long double> want[4];
  for (int i = 0; i < 4; ++i) want[i].assign(gradients[i].data() == nullptr ? 0 : gradients[i].size, 0.0L);
  bool good = true;
  for_each(result, [&](const std::vector<int64_t>& index) {
    std::vector<int64_t> at(index.begin(), index.end() - 1), term_at = index;
    at.push_back(0), term_at.push_back(0);
    std::vector<long double> terms(inputs), z(inputs);
    long double peak = -kInfinity, total = 0.0L;
    for (int64_t k = 0; k < inputs; ++k) {
      at.back() = term_at.back() = k;
      const long double x = arrays[0].at(at), scale = arrays[2].at(term_at);
      const long double loc = arrays[1].data() == nullptr ? 0.0L : arrays[1].at(term_at);
      z[k] = std::isinf(x) ? 0.0L : (x - loc) / scale;
      terms[k] = std::isinf(x) ? -kInfinity
                               : arrays[3].at(term_at) - std::log(scale) - 0.91893853320467274178L - 0.5L * z[k] * z[k];
      peak = std::max(peak, terms[k]);
    }
    for (int64_t k = 0; k < inputs && peak > -kInfinity; ++k) total += std::exp(terms[k] - peak);
    const long double value = peak > -kInfinity ? peak + std::log(total) : peak;
    good &= close(out.at(index), value, std::abs(value));
    for (int64_t k = 0; k < inputs && peak > -kInfinity; ++k) {
      at.back() = term_at.back() = k;
      const long double w = upstream.at(index) * std::exp(terms[k] - value), scale = arrays[2].at(term_at);
      const long double parts[4] = {-w * z[k] / scale, w * z[k] / scale, w * (z[k] * z[k] - 1.0L) / scale, w};
      for (int i = 0; i < 4; ++i) {
        if (gradients[i].data() == nullptr) continue;
        const std::vector<int64_t>& place = i == 0 ? at : term_at;
        want[i][&gradients[i].at(place) - gradients[i].data()] += parts[i];
      }
    }
  });
  for (int i = 0; i < 4; ++i) {
    long double largest = 0.0L;
    for (const long double value : want[i]) largest = std::max(largest, std::abs(value));
    for (size_t n = 0; n < want[i].size(); ++n) good &= close(gradients[i].data()[n], want[i][n], largest);
  }
  return good;
}

template <class T>
bool exponentials(Random& random) {
  std::unique_ptr<T[]> from(new T[48]), to(new T[48]);
  for (int i = 0; i < 48; ++i) from[i] = static_cast<T>(std::uniform_real_distribution<double>(-126.0, 0.0)(random));
  ugmm_exponentials(sizeof(T) == 8, 48, 2, from.get(), to.get());
  for (int i = 0; i < 48; ++i)
    if (!close(to[i], std::exp2(static_cast<long double>(from[i])), 1.0L)) return false;
  return true;
}

// The exit status of a process that uses one instruction set.
int run(const char* name) {
  setenv("UGMM_PPL_ISA", name, 1);
  if (std::strcmp(ugmm_instruction_set(), name) != 0) {
    std::printf("%s: not tested, this processor lacks it\n", name);
    return 0;
  }
  Random random(20250907);
  constexpr int kCalls = 200;
  for (int i = 0; i < kCalls; ++i) {
    if (!call<float>(random) || !call<double>(random) || !exponentials<float>(random) || !exponentials<double>(random)) {
      std::printf("%s: call %d differs from the plain loops\n", name, i);
      return 1;
    }
  }
  std::printf("%s: %d calls in float and in double are as the plain loops, and the sanitizers found nothing\n", name, kCalls);
  return 0;
}

}  // namespace

int main() {
  int failed = 0;
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    const pid_t child = fork();  // the library chooses once per process
    if (child == 0) {
      const int status = run(name);
      std::fflush(stdout);
      std::exit(status);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 1;
  }
  return failed;
}
