// Equation (2) and its gradient on the CPU, fused: no temporary of size B x J x K is ever made.
//
//   a_bj = log sum_k exp(log weights_jk + log N(x_bk; loc_jk, scale_jk^2))
//
// In base 2, with r = sqrt(log2(e) / 2) / scale and c = log2(weights / (scale sqrt(2 pi))), a component's term is
// t = c - ((x - loc) r)^2: three instructions, and one exponential each way. Lanes are inputs k. The forward pass keeps a
// maximum per lane, so terms are computed once; lanes meet at the end of a neuron. The backward pass recomputes the
// responsibilities 2^(t - a); a task owns some columns k of all gradients, so no two threads ever add to one element,
// and the result does not depend on the order in which tasks run.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

#include "problem.h"
#include "simd.h"

namespace UGMM_ISA {
namespace {

using ugmm::Gradients;
using ugmm::Parameter;
using ugmm::Pool;
using ugmm::Problem;
using ugmm::Rows;

constexpr double kLn2 = 0.69314718055994530942;
constexpr double kLog2E = 1.4426950408889634074;
constexpr double kHalfLog2TwoPi = 1.3257480647361593990;  // log2(sqrt(2 pi))
constexpr double kRootHalfLog2E = 0.84932180028801904272;  // sqrt(log2(e) / 2)

constexpr int64_t kFewInputs = 128;
constexpr int kFar = 32;  // of a in base 2: up to here its rounding is not felt in 2^(t - a)
constexpr int64_t kStretch = 64;  // steps in one chain of additions: longer ones would gather rounding errors

// In place of an a of -inf, which has no responsible component: makes 2^(t - a) 0.
template <class T>
constexpr T kImpossible = std::numeric_limits<T>::max();

template <class T>
class Buffer {  // aligned and not initialised
 public:
  explicit Buffer(int64_t size) {
    if (size > capacity_) grow(size);
  }
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(other.data_), capacity_(other.capacity_) { other.data_ = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  T* at_least(int64_t size) {
    if (size > capacity_) grow(size);
    return data_;
  }
  T* get() const { return data_; }

 private:
  void grow(int64_t size) {
    std::free(data_);
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    capacity_ = size;
  }
  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

template <class T>
T* scratch(int64_t size) {  // of this thread, reused by its next task
  static thread_local Buffer<T> buffer;
  return buffer.at_least(size);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Components of one neuron, ready for the inner loops: [panel of lanes][loc, r, c][lane], padded with impossible ones.
template <class T>
void pack_neuron(const Problem& p, int64_t group, int64_t neuron, int64_t first, int64_t panels, T* packed) {
  constexpr int L = kLanes<T>;
  auto at = [&](const Parameter& a) {
    return static_cast<const T*>(a.data) + a.group[group] + neuron * a.j;
  };
  const T* loc = p.loc.data == nullptr ? nullptr : at(p.loc);
  const T *scale = at(p.scale), *log_weights = at(p.log_weights);
  for (int64_t panel = 0; panel < panels; ++panel, packed += 3 * L) {
    const int64_t start = (first + panel) * L, count = std::min<int64_t>(L, p.inputs - start);
    alignas(64) T m[L] = {}, s[L], w[L];
    for (int64_t i = 0; i < L; ++i) s[i] = std::numeric_limits<T>::infinity(), w[i] = -s[i];  // r = 0, c = -inf
    if (count == L && p.scale.k == 1 && p.log_weights.k == 1 && (loc == nullptr || p.loc.k == 1)) {
      if (loc != nullptr) std::memcpy(m, loc + start, sizeof m);
      std::memcpy(s, scale + start, sizeof s);
      std::memcpy(w, log_weights + start, sizeof w);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t k = start + i;
        if (loc != nullptr) m[i] = loc[k * p.loc.k];
        s[i] = scale[k * p.scale.k];
        w[i] = log_weights[k * p.log_weights.k];
      }
    }
    store<T>(packed, load<T>(m));
    store<T>(packed + L, static_cast<T>(kRootHalfLog2E) / load<T>(s));
    store<T>(packed + 2 * L, load<T>(w) * static_cast<T>(kLog2E) - log2<T>(load<T>(s)) - static_cast<T>(kHalfLog2TwoPi));
  }
}

// Inputs of one row, [panel][lane]. An input beyond the reach of every component is held where its square still
// overflows, so that its terms are -inf and its gradients 0.
template <class T>
void pack_row(const Problem& p, int64_t group, int64_t row, int64_t first, int64_t panels, T* packed) {
  constexpr int L = kLanes<T>;
  const T reach = std::numeric_limits<T>::max() * static_cast<T>(1e-13);
  const T* x = static_cast<const T*>(p.x.data) + p.x.group[group] + p.x.row[row];
  for (int64_t panel = 0; panel < panels; ++panel, packed += L) {
    const int64_t start = (first + panel) * L, count = std::min<int64_t>(L, p.inputs - start);
    Vec<T> value;
    if (p.x.k == 0) {
      value = splat(*x);
    } else if (count == L && p.x.k == 1) {
      value = load_unaligned(x + start);
    } else {
      alignas(64) T lanes[L] = {};
      for (int64_t i = 0; i < count; ++i) lanes[i] = x[(start + i) * p.x.k];
      value = load<T>(lanes);
    }
    value = value > reach ? splat(reach) : value;
    store<T>(packed, value < -reach ? splat(-reach) : value);
  }
}

// The inner loops of the forward pass come in two kinds. Where lanes are inputs, a step is a panel of kLanes inputs, and
// the lanes meet at the end of a neuron. Where lanes are rows, a step is one input of kLanes rows, and they never meet:
// better for few inputs, if there are rows enough.
enum class Lanes { inputs, rows };

// One term of a neuron. Both passes must round it alike: see `replace_far`.
template <class T>
inline Vec<T> term(Vec<T> z, Vec<T> c) {
  return c - z * z;
}

// sum_k part_k 2^(whole_k - peak), pairwise.
template <class T, int P>
inline Vec<T> sum_at(const Vec<T> (&part)[P], const Vec<T> (&whole)[P], Vec<T> peak) {
  Vec<T> terms[P];
#pragma GCC unroll 8
  for (int k = 0; k < P; ++k) terms[k] = times_power_or_zero<T>(part[k], whole[k] - peak);
#pragma GCC unroll 8
  for (int width = P / 2; width > 0; width /= 2)
#pragma GCC unroll 8
    for (int k = 0; k < width; ++k) terms[k] += terms[k + width];
  return terms[0];
}

// Adds the terms of P steps to R rows (or vectors of rows) of one neuron. A lane's sum is kept as sum 2^peak with a whole
// number for peak, so that raising the peak is exact, and the polynomials wait for nobody's maximum. Where scaling by a
// power of two is one instruction that overflows to infinity, the peak is only raised when a sum outgrows it.
template <class T, Lanes lanes, int R, int P, bool first>
inline void add_terms(const T* components, const T* x, int64_t x_stride, Vec<T>* peak, Vec<T>* sum) {
  constexpr int L = kLanes<T>;
  Vec<T> whole[R][P], part[R][P];
#pragma GCC unroll 8
  for (int k = 0; k < P; ++k) {
    Vec<T> loc, r, c;
    if constexpr (lanes == Lanes::inputs) {
      const T* at = components + k * 3 * L;
      loc = load(at), r = load(at + L), c = load(at + 2 * L);
    } else {
      const T* at = components + k;
      loc = splat(at[0]), r = splat(at[L]), c = splat(at[2 * L]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec<T> z = (load(x + i * x_stride + k * L) - loc) * r;
      const Vec<T> t = term<T>(z, c);
      whole[i][k] = round_whole<T>(t);
      part[i][k] = exp2_fraction(fraction<T>(t, whole[i][k]));
    }
  }
#if defined(__AVX512F__)
  if constexpr (!first) {
    Vec<T> total[R], largest = {};
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      total[i] = sum[i] + sum_at<T, P>(part[i], whole[i], peak[i]);
      largest = maximum<T>(largest, total[i]);
    }
    if (all_below<T>(largest, T{1 << 30})) {
      for (int i = 0; i < R; ++i) sum[i] = total[i];
      return;
    }
  }
#endif
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    Vec<T> high = peak[i];
#pragma GCC unroll 8
    for (int k = 0; k < P; ++k) high = maximum<T>(high, whole[i][k]);
    sum[i] = times_power_of_two<T>(sum[i], peak[i] - high) + sum_at<T, P>(part[i], whole[i], high);
    peak[i] = high;
  }
}

// All `steps` of a neuron for R rows, or vectors of rows, of x, which are `steps` vectors each.
template <class T, Lanes lanes, int R>
inline void sum_terms(const T* components, const T* x, int64_t steps, Vec<T>* peak, Vec<T>* sum) {
  constexpr int L = kLanes<T>, P = kVectorBytes == 64 ? 4 : 2;
  constexpr T lowest = std::numeric_limits<T>::lowest();
  Vec<T> high[R], total[R];
  int64_t k = 0;
  auto add = [&](auto count, auto first) {
    const int64_t at = lanes == Lanes::inputs ? k * 3 * L : k / L * 3 * L + k % L;
    add_terms<T, lanes, R, count, first>(components + at, x + k * L, steps * L, high, total);
    k += count;
  };
  constexpr std::integral_constant<int, P> block{};
  constexpr std::integral_constant<int, 2> two{};
  constexpr std::integral_constant<int, 1> one{};
  while (k < steps) {
    const bool first = k == 0;
    const int64_t end = std::min(steps, k + kStretch);
    for (int i = 0; i < R; ++i) high[i] = splat(lowest), total[i] = Vec<T>{};
    if (k + P <= end) {
      add(block, std::true_type{});
      while (k + P <= end) add(block, std::false_type{});
    }
    if (P > 2 && k + 2 <= end) add(two, std::true_type{});
    if (k < end) add(one, std::true_type{});
    for (int i = 0; i < R; ++i) {
      const Vec<T> top = first ? high[i] : maximum<T>(peak[i], high[i]);
      if (!first) total[i] = times_power_of_two<T>(total[i], high[i] - top) + times_power_of_two<T>(sum[i], peak[i] - top);
      peak[i] = top, sum[i] = total[i];
    }
  }
}

// Activations of one neuron for up to kLanes rows, where lanes are inputs.
template <class T>
void forward_few(const T* components, const T* x, int64_t rows, int64_t panels, T* result) {
  constexpr int L = kLanes<T>;
  Vec<T> peak[L], sum[L], lanes[L];
  int64_t i = 0;
  for (; i + 2 <= rows; i += 2)
    sum_terms<T, Lanes::inputs, 2>(components, x + i * panels * L, panels, peak + i, sum + i);
  if (i < rows) sum_terms<T, Lanes::inputs, 1>(components, x + i * panels * L, panels, peak + i, sum + i), ++i;
  for (; i < L; ++i) peak[i] = sum[i] = Vec<T>{};
  for (int n = 0; n < L; ++n) lanes[n] = peak[n];
  const Vec<T> top = reduce_rows<Max, T>(lanes);
  for (int n = 0; n < L; ++n) lanes[n] = times_power_of_two<T>(sum[n], peak[n] - top[n]);
  store<T>(result, (top + log2<T>(reduce_rows<Add, T>(lanes))) * static_cast<T>(kLn2));
}

// Activations of one neuron for R kLanes rows, where lanes are rows.
template <class T, int R>
void forward_many(const T* components, const T* x, int64_t inputs, T* result) {
  Vec<T> peak[R], sum[R];
  sum_terms<T, Lanes::rows, R>(components, x, inputs, peak, sum);
  for (int i = 0; i < R; ++i)
    store<T>(result + i * kLanes<T>, (peak[i] + log2<T>(sum[i])) * static_cast<T>(kLn2));
}

template <class T>
void forward(const Problem& p, Pool& pool) {
  constexpr int L = kLanes<T>;
  const int64_t panels = ceil_div(p.inputs, L), width = panels * 3 * L;
  Buffer<T> components(p.groups * p.neurons * width);
  const int64_t share = std::max<int64_t>(1, 16384 / (panels * L));
  pool.run(ceil_div(p.groups * p.neurons, share), [&](int64_t task) {
    for (int64_t i = task * share; i < std::min((task + 1) * share, p.groups * p.neurons); ++i)
      pack_neuron<T>(p, i / p.neurons, i % p.neurons, 0, panels, components.get() + i * width);
  });
  // Rows of a task: inputs of about 128 KiB, which stay in the second-level cache while all its neurons pass.
  const int64_t cached = std::max<int64_t>(1, 131072 / (panels * kVectorBytes * L)) * L;
  const int64_t enough = p.neurons < 8 ? 1024 : 128;
  const int64_t row_block = std::min({cached, enough, ceil_div(p.rows, L) * L});
  const int64_t row_blocks = ceil_div(p.rows, row_block);
  const int64_t wanted = ceil_div(8 * pool.threads(), std::max<int64_t>(1, p.groups * row_blocks));
  const int64_t neuron_block = std::max(std::min<int64_t>(p.neurons, 8), ceil_div(p.neurons, wanted));
  const int64_t neuron_blocks = ceil_div(p.neurons, neuron_block);
  pool.run(p.groups * row_blocks * neuron_blocks, [&](int64_t task) {
    const int64_t group = task / (row_blocks * neuron_blocks), block = task / neuron_blocks % row_blocks;
    const int64_t row0 = block * row_block, rows = std::min(row_block, p.rows - row0);
    const int64_t j0 = task % neuron_blocks * neuron_block, j1 = std::min(j0 + neuron_block, p.neurons);
    const int64_t by_rows = p.inputs <= kFewInputs ? rows / L * L : 0;  // this many rows with lanes as rows
    T* x = scratch<T>((rows + 1) * panels * L);
    T *rest = x + by_rows * p.inputs, *row = x + rows * panels * L;
    for (int64_t i = 0; i < by_rows; ++i) {
      T* turned = x + i / L * L * p.inputs + i % L;
      if (p.x.k == 0) {  // one input for all components: kLanes rows at a time
        pack_row<T>(p, group, row0 + i, 0, 1, row);
        *turned = row[0];
        if (i % L == L - 1)
          for (int64_t k = 1; k < p.inputs; ++k) store<T>(turned - i % L + k * L, load<T>(turned - i % L));
        continue;
      }
      pack_row<T>(p, group, row0 + i, 0, panels, row);
      for (int64_t k = 0; k < p.inputs; ++k) turned[k * L] = row[k];
    }
    for (int64_t i = by_rows; i < rows; ++i)
      pack_row<T>(p, group, row0 + i, 0, panels, rest + (i - by_rows) * panels * L);
    T* out = static_cast<T*>(p.out.data) + p.out.group[group];
    for (int64_t j = j0; j < j1; ++j) {
      const T* component = components.get() + (group * p.neurons + j) * width;
      alignas(64) T result[2 * L];
      int64_t i = 0;
      auto put = [&](int64_t count) {
        for (int64_t n = 0; n < count; ++n) out[p.out.row[row0 + i + n] + j] = result[n];
        i += count;
      };
      while (i < rows) {
        if (i + 2 * L <= by_rows) {
          forward_many<T, 2>(component, x + i * p.inputs, p.inputs, result), put(2 * L);
        } else if (i < by_rows) {
          forward_many<T, 1>(component, x + i * p.inputs, p.inputs, result), put(L);
        } else {
          const int64_t count = std::min<int64_t>(L, rows - i);
          forward_few<T>(component, rest + (i - by_rows) * panels * L, count, panels, result), put(count);
        }
      }
    }
  });
}

// One panel of inputs, N neurons, some rows: adds to dx, and returns per neuron sum w, sum w z, sum w z^2 with
// w = upstream * responsibility and z = (x - loc) r.
template <class T, int N, bool dx_wanted>
void backward_panel(const T* components, int64_t component_stride, const T* x, const T* a, const T* upstream,
                    int64_t rows, T* dx, Vec<T> (*sums)[3]) {
  constexpr int L = kLanes<T>;
  Vec<T> loc[N], r[N], c[N], w_sum[N], q_sum[N], s_sum[N];
  for (int n = 0; n < N; ++n) {
    const T* component = components + n * component_stride;
    loc[n] = load(component), r[n] = load(component + L), c[n] = load(component + 2 * L);
    w_sum[n] = q_sum[n] = s_sum[n] = Vec<T>{};
  }
  for (int64_t i = 0; i < rows; ++i) {
    const Vec<T> input = load(x + i * L);
    Vec<T> gradient = {};
    if constexpr (dx_wanted) gradient = load(dx + i * L);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Vec<T> z = (input - loc[n]) * r[n];
      const Vec<T> w = exp2<T>(term<T>(z, c[n]) - a[n * rows + i]) * upstream[n * rows + i];
      const Vec<T> q = w * z;
      w_sum[n] += w;
      q_sum[n] += q;
      s_sum[n] += q * z;
      if constexpr (dx_wanted) gradient += q * r[n];
    }
    if constexpr (dx_wanted) store<T>(dx + i * L, gradient);
  }
  for (int n = 0; n < N; ++n) sums[n][0] = w_sum[n], sums[n][1] = q_sum[n], sums[n][2] = s_sum[n];
}

template <class T>
void add_lanes(Vec<T> value, int64_t count, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) to[i * stride] += value[i];
}

// Where the tasks of a backward pass write: the gradients themselves, or copies that are added up afterwards.
template <class T>
struct Target {
  T *x, *loc, *scale, *log_weights;
};

template <class T, bool dx_wanted>
void backward_task(const Problem& p, const Gradients& g, const Target<T>& to, int64_t panel, int64_t group,
                   int64_t row0, int64_t rows, int64_t j0, int64_t j1, const T* a, const T* upstream) {
  constexpr int L = kLanes<T>;
  constexpr int N = kVectorBytes == 64 ? 2 : 1;
  const int64_t k0 = panel * L, count = std::min<int64_t>(L, p.inputs - k0), neurons = j1 - j0;
  T* x = scratch<T>(rows * 2 * L + neurons * 3 * L);
  T *dx = x + rows * L, *components = dx + rows * L;
  for (int64_t i = 0; i < rows; ++i) pack_row<T>(p, group, row0 + i, panel, 1, x + i * L);
  if constexpr (dx_wanted) std::memset(dx, 0, sizeof(T) * rows * L);
  for (int64_t j = 0; j < neurons; ++j) pack_neuron<T>(p, group, j0 + j, panel, 1, components + j * 3 * L);
  auto add = [&](int64_t j, Vec<T>* sums) {
    const Vec<T> r = load(components + j * 3 * L + L);
    const Vec<T> inverse_scale = r * static_cast<T>(1.0 / kRootHalfLog2E);
    auto put = [&](T* base, const Parameter& target, Vec<T> value) {
      if (base == nullptr) return;
      T* at = base + target.group[group] + (j0 + j) * target.j + k0 * target.k;
      if (count == L && target.k == 1) {
        value += load_unaligned(at);
        std::memcpy(at, &value, sizeof value);
      } else {
        add_lanes<T>(value, count, at, target.k);
      }
    };
    put(to.log_weights, g.log_weights, sums[0]);
    put(to.loc, g.loc, sums[1] * r * static_cast<T>(2.0 * kLn2));
    put(to.scale, g.scale, (sums[2] * static_cast<T>(2.0 * kLn2) - sums[0]) * inverse_scale);
  };
  int64_t j = 0;
  Vec<T> sums[N][3];
  for (; j + N <= neurons; j += N) {
    backward_panel<T, N, dx_wanted>(components + j * 3 * L, 3 * L, x, a + j * rows, upstream + j * rows, rows, dx, sums);
    for (int n = 0; n < N; ++n) add(j + n, sums[n]);
  }
  for (; j < neurons; ++j) {
    backward_panel<T, 1, dx_wanted>(components + j * 3 * L, 3 * L, x, a + j * rows, upstream + j * rows, rows, dx, sums);
    add(j, sums[0]);
  }
  if constexpr (dx_wanted)
    for (int64_t i = 0; i < rows; ++i) {
      T* at = to.x + g.x.group[group] + g.x.row[row0 + i] + k0 * g.x.k;
      add_lanes<T>(load(dx + i * L) * static_cast<T>(-2.0 * kLn2), count, at, g.x.k);
    }
}

template <class T>
bool is_far(T a) {
  return (std::abs(a) > kFar) & (a != kImpossible<T>);
}

// Where a is far from 0, its rounding makes nonsense of 2^(t - a). Puts in its place the peak of the terms, a whole number
// and exact, and divides the upstream gradient by what is left of 2^a, sum_k 2^(t_k - peak). For some rows of one neuron.
template <class T>
void replace_far(const Problem& p, int64_t group, int64_t row0, int64_t rows, int64_t neuron, T* a, T* upstream) {
  constexpr int L = kLanes<T>;
  const int64_t panels = ceil_div(p.inputs, L);
  T* components = nullptr;
  for (int64_t i = 0; i < rows; ++i) {
    if (!is_far(a[i])) continue;
    if (components == nullptr) {
      components = scratch<T>(4 * panels * L);
      pack_neuron<T>(p, group, neuron, 0, panels, components);
    }
    T* x = components + 3 * panels * L;
    pack_row<T>(p, group, row0 + i, 0, panels, x);
    Vec<T> peak, sum;
    sum_terms<T, Lanes::inputs, 1>(components, x, panels, &peak, &sum);
    T top = peak[0], total = 0;
    for (int n = 1; n < L; ++n) top = std::max<T>(top, peak[n]);
    for (int n = 0; n < L; ++n) total += sum[n] * std::exp2(peak[n] - top);
    a[i] = top;
    upstream[i] /= total;
  }
}

template <class T>
void backward(const Problem& p, const Gradients& g, Pool& pool) {
  constexpr int L = kLanes<T>;
  const int64_t panels = ceil_div(p.inputs, L);
  const int64_t row_block = std::min<int64_t>(p.rows, 256), row_blocks = ceil_div(p.rows, row_block);
  // A task is one panel of all rows, neurons and groups. Where there are too few panels for the threads, the units
  // (group, rows, neurons) are dealt to several tasks of a panel, each with its own copy of what they share.
  const int64_t wanted = panels >= 2 * pool.threads() || pool.threads() == 1 ? 1 : ceil_div(2 * pool.threads(), panels);
  const int64_t few = std::max<int64_t>(1, wanted / std::max<int64_t>(1, p.groups * row_blocks));
  const int64_t neuron_block = std::max<int64_t>(std::min<int64_t>(p.neurons, 16), ceil_div(p.neurons, few));
  const int64_t neuron_blocks = ceil_div(p.neurons, neuron_block);
  const int64_t units = p.groups * row_blocks * neuron_blocks, splits = std::min(wanted, units);

  // a in base 2 and the upstream gradient by neuron: [group][row block][neuron][row].
  const int64_t per_group = p.neurons * p.rows;
  Buffer<T> turned(2 * p.groups * per_group);
  T *a = turned.get(), *upstream = a + p.groups * per_group;
  std::atomic<bool> any_far{false};
  pool.run(p.groups * row_blocks, [&](int64_t task) {
    const int64_t group = task / row_blocks, row0 = task % row_blocks * row_block;
    const int64_t rows = std::min(row_block, p.rows - row0);
    const int64_t base = group * per_group + row0 * p.neurons;
    const T* from_a = static_cast<const T*>(p.out.data) + p.out.group[group];
    const T* from_g = static_cast<const T*>(g.upstream.data) + g.upstream.group[group];
    for (int64_t i0 = 0; i0 < rows; i0 += 16)  // tiles of some lines each way
      for (int64_t j = 0; j < p.neurons; ++j)
        for (int64_t i = i0; i < std::min(i0 + 16, rows); ++i) {
          const T value = from_a[p.out.row[row0 + i] + j];
          const bool impossible = value == -std::numeric_limits<T>::infinity();
          a[base + j * rows + i] = impossible ? kImpossible<T> : value * static_cast<T>(kLog2E);
          upstream[base + j * rows + i] = from_g[g.upstream.row[row0 + i] + j];
        }
    int far = 0;
    for (int64_t i = base; i < base + rows * p.neurons; ++i) far |= is_far(a[i]);
    if (far != 0) any_far = true;
  });
  if (any_far)
    pool.run(p.groups * row_blocks * p.neurons, [&](int64_t task) {
      const int64_t group = task / (row_blocks * p.neurons), row0 = task / p.neurons % row_blocks * row_block;
      const int64_t neuron = task % p.neurons, rows = std::min(row_block, p.rows - row0);
      const int64_t at = group * per_group + row0 * p.neurons + neuron * rows;
      replace_far<T>(p, group, row0, rows, neuron, a + at, upstream + at);
    });

  const bool own_x = splits > 1 && g.x.data != nullptr && (g.x_shared || neuron_blocks > 1);
  const bool own_parameters = splits > 1 && (g.parameters_shared || row_blocks > 1);
  const int64_t x_size = own_x ? g.x.size : 0;
  auto size = [&](const Parameter& a) { return own_parameters && a.data != nullptr ? a.size : 0; };
  const int64_t sizes[3] = {size(g.loc), size(g.scale), size(g.log_weights)};
  const int64_t copy = x_size + sizes[0] + sizes[1] + sizes[2];
  Buffer<T> copies((splits - 1) * copy);
  auto zero = [](void* data, int64_t count) {
    if (data != nullptr) std::memset(data, 0, sizeof(T) * count);
  };
  zero(g.x.data, g.x.size), zero(g.loc.data, g.loc.size), zero(g.scale.data, g.scale.size);
  zero(g.log_weights.data, g.log_weights.size), zero(copies.get(), (splits - 1) * copy);

  pool.run(panels * splits, [&](int64_t task) {
    const int64_t panel = task % panels, split = task / panels;
    Target<T> to{static_cast<T*>(g.x.data), static_cast<T*>(g.loc.data), static_cast<T*>(g.scale.data),
                 static_cast<T*>(g.log_weights.data)};
    if (split > 0) {
      T* own = copies.get() + (split - 1) * copy;
      if (own_x) to.x = own;
      if (sizes[0] > 0) to.loc = own + x_size;
      if (sizes[1] > 0) to.scale = own + x_size + sizes[0];
      if (sizes[2] > 0) to.log_weights = own + x_size + sizes[0] + sizes[1];
    }
    for (int64_t unit = units * split / splits; unit < units * (split + 1) / splits; ++unit) {
      const int64_t group = unit / (row_blocks * neuron_blocks), block = unit / neuron_blocks % row_blocks;
      const int64_t row0 = block * row_block, rows = std::min(row_block, p.rows - row0);
      const int64_t j0 = unit % neuron_blocks * neuron_block, j1 = std::min(j0 + neuron_block, p.neurons);
      const int64_t base = group * per_group + row0 * p.neurons + j0 * rows;
      const auto run = to.x == nullptr ? backward_task<T, false> : backward_task<T, true>;
      run(p, g, to, panel, group, row0, rows, j0, j1, a + base, upstream + base);
    }
  });
  if (splits == 1 || copy == 0) return;
  auto gather = [&](void* data, int64_t offset, int64_t count) {
    T* to = static_cast<T*>(data);
    for (int64_t split = 1; split < splits; ++split) {
      const T* own = copies.get() + (split - 1) * copy + offset;
      for (int64_t i = 0; i < count; ++i) to[i] += own[i];
    }
  };
  gather(g.x.data, 0, x_size), gather(g.loc.data, x_size, sizes[0]);
  gather(g.scale.data, x_size + sizes[0], sizes[1]), gather(g.log_weights.data, x_size + sizes[0] + sizes[1], sizes[2]);
}

// The limit that the benchmarks compare with, and the test of the polynomial: 2^from, `repeats` times, by the fewest
// instructions that do it for finite numbers (to 2^-150); count in whole vectors.
template <class T>
void exponentials(const T* from, T* to, int64_t count, int64_t repeats) {
  for (int64_t n = 0; n < repeats; ++n) {
    for (int64_t i = 0; i + kLanes<T> <= count; i += kLanes<T>) {
      const Vec<T> x = maximum<T>(splat(T{-150}), load_unaligned(from + i)), whole = round_whole<T>(x);
      const Vec<T> value = times_power_of_two<T>(exp2_fraction(x - whole), whole);
      std::memcpy(to + i, &value, sizeof value);
    }
    asm volatile("" ::"r"(from), "r"(to) : "memory");  // every repetition counts
  }
}

}  // namespace

extern const ugmm::Kernels kKernels;
const ugmm::Kernels kKernels = {forward<float>,  forward<double>,    backward<float>,
                                backward<double>, exponentials<float>, exponentials<double>};

}  // namespace UGMM_ISA
