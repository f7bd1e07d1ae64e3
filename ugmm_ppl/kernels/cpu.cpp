// Equation (2) and its gradient on the CPU, fused: no temporary of size B x J x K is ever made.
//
//   a_bj = log sum_k exp(log weights_jk + log N(x_bk; loc_jk, scale_jk^2))
//
// In base 2, with r = sqrt(log2(e) / 2) / scale and c = log2(weights / (scale sqrt(2 pi))), a component's term is
// t = c - ((x - loc) r)^2: three instructions, and one exponential each way. The forward pass adds 2^t as it is, and only
// where a sum leaves the range in which that is exact does it begin again with a peak; so terms are computed once. The
// backward pass recomputes the responsibilities 2^(t - a); a task owns some columns k of all gradients, so no two threads
// ever add to one element, and the result does not depend on the order in which tasks run.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

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
constexpr int kNear = 32;  // of a in base 2: up to here terms need no peak, and the rounding of a is not felt in 2^-a
constexpr int kRowsAtOnce = 4;  // of a backward pass: enough independent instructions for any processor
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

// to(j)[i] = from(i)[j] for all i < rows, j < columns; `from` and `to` give the addresses of rows.
template <class T, class From, class To>
void turn(int64_t rows, int64_t columns, const From& from, const To& to) {
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < columns; j += L) {
      if (i + L <= rows && j + L <= columns) {
        Vec<T> tile[L];
        for (int n = 0; n < L; ++n) tile[n] = load_unaligned<T>(from(i + n) + j);
        transpose<T>(tile);
        for (int n = 0; n < L; ++n) std::memcpy(to(j + n) + i, &tile[n], sizeof tile[n]);
      } else {
        for (int64_t m = i; m < std::min(i + L, rows); ++m)
          for (int64_t n = j; n < std::min(j + L, columns); ++n) to(n)[m] = from(m)[n];
      }
    }
}

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

// The sum of all terms, pairwise; uses them up.
template <class T, int P>
inline Vec<T> pairwise(Vec<T>* terms) {
#pragma GCC unroll 8
  for (int width = P / 2; width > 0; width /= 2)
#pragma GCC unroll 8
    for (int k = 0; k < width; ++k) terms[k] += terms[k + width];
  return terms[0];
}

// The terms of P steps for R rows, or vectors of rows, of one neuron.
template <class T, Lanes lanes, int R, int P>
inline void terms_of(const T* components, const T* x, int64_t x_stride, Vec<T> (&t)[R][P]) {
  constexpr int L = kLanes<T>;
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
    for (int i = 0; i < R; ++i) t[i][k] = term<T>((load(x + i * x_stride + k * L) - loc) * r, c);
  }
}

// sum_k 2^t_k as it is, without a peak: for `near` sums. Adds P steps.
template <class T, int R>
struct Plain {
  Vec<T> sum[R] = {};

  template <int P>
  void add(const Vec<T> (&t)[R][P]) {
    Vec<T> power[R * P];
#pragma GCC unroll 8
    for (int n = 0; n < R * P; ++n) power[n] = t[n / P][n % P];
    exp2<T, R * P>(power);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) sum[i] += pairwise<T, P>(power + i * P);
  }
  void add(const Plain& other) {
    for (int i = 0; i < R; ++i) sum[i] += other.sum[i];
  }
};

// The same as sum 2^peak, for any terms. The peak is a whole number, so that raising it is exact, and the bits are those of
// a plain sum where that is near.
template <class T, int R>
struct Peaked {
  Vec<T> sum[R] = {}, peak[R];

  Peaked() {
    for (int i = 0; i < R; ++i) peak[i] = splat(std::numeric_limits<T>::lowest());
  }
  template <int P>
  void add(const Vec<T> (&t)[R][P]) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      Vec<T> whole[P], part[P], high = peak[i];
#pragma GCC unroll 8
      for (int k = 0; k < P; ++k) {
        whole[k] = round_whole<T>(t[i][k]);
        part[k] = t[i][k] - whole[k];
        high = maximum<T>(whole[k], high);  // passes over NaN, which stays in the sum
      }
      exp2_fraction<T, P>(part);
#pragma GCC unroll 8
      for (int k = 0; k < P; ++k) part[k] = times_power_of_two<T>(part[k], whole[k] - high);
      sum[i] = times_power_of_two<T>(sum[i], peak[i] - high) + pairwise<T, P>(part);
      peak[i] = high;
    }
  }
  void add(const Peaked& other) {
    for (int i = 0; i < R; ++i) {
      const Vec<T> high = maximum<T>(peak[i], other.peak[i]);
      sum[i] = times_power_of_two<T>(sum[i], peak[i] - high) + times_power_of_two<T>(other.sum[i], other.peak[i] - high);
      peak[i] = high;
    }
  }
};

// All `steps` of a neuron for R rows, or vectors of rows, of x, which are `steps` vectors each; Sum is Plain or Peaked.
template <template <class, int> class Sum, class T, Lanes lanes, int R>
inline Sum<T, R> sum_terms(const T* components, const T* x, int64_t steps) {
  constexpr int L = kLanes<T>, P = kVectorBytes == 64 ? 4 : 2;
  Sum<T, R> total;
  int64_t k = 0;
  while (k < steps) {
    const int64_t end = std::min(steps, k + kStretch);
    Sum<T, R> stretch;
    auto add = [&](auto count) {
      Vec<T> t[R][count];
      const int64_t at = lanes == Lanes::inputs ? k * 3 * L : k / L * 3 * L + k % L;
      terms_of<T, lanes, R, count>(components + at, x + k * L, steps * L, t);
      stretch.add(t);
      k += count;
    };
    while (k + P <= end) add(std::integral_constant<int, P>{});
    if (P > 2 && k + 2 <= end) add(std::integral_constant<int, 2>{});
    if (k < end) add(std::integral_constant<int, 1>{});
    total.add(stretch);
  }
  return total;
}

template <class T>
bool is_near(Vec<T> sum) {
  constexpr T high = static_cast<T>(int64_t{1} << kNear);
  return all_between<T>(sum, 1 / high, high);
}

// Calls add(i, R) for rows i .. i + R - 1, two at a time.
template <class Add>
void for_pairs(int64_t rows, const Add& add) {
  int64_t i = 0;
  for (; i + 2 <= rows; i += 2) add(i, std::integral_constant<int, 2>{});
  if (i < rows) add(i, std::integral_constant<int, 1>{});
}

// sum_k 2^t_k of one neuron for up to kLanes rows, a lane each, where lanes of x are inputs; 1 in the lanes that are left.
template <class T>
Vec<T> plain_few(const T* components, const T* x, int64_t rows, int64_t panels) {
  constexpr int L = kLanes<T>;
  Vec<T> lanes[L];
  for_pairs(rows, [&](int64_t i, auto count) {
    const auto found = sum_terms<Plain, T, Lanes::inputs, count>(components, x + i * panels * L, panels);
    for (int n = 0; n < count; ++n) lanes[i + n] = found.sum[n];
  });
  for (int64_t i = rows; i < L; ++i) lanes[i] = splat(T{1});
  return reduce_rows<Add, T>(lanes);
}

// The same as sum 2^top.
template <class T>
Vec<T> peaked_few(const T* components, const T* x, int64_t rows, int64_t panels, Vec<T>& top) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[L], peak[L], lanes[L];
  for_pairs(rows, [&](int64_t i, auto count) {
    const auto found = sum_terms<Peaked, T, Lanes::inputs, count>(components, x + i * panels * L, panels);
    for (int n = 0; n < count; ++n) sum[i + n] = found.sum[n], peak[i + n] = found.peak[n];
  });
  for (int64_t i = rows; i < L; ++i) sum[i] = splat(T{1}), peak[i] = Vec<T>{};
  for (int n = 0; n < L; ++n) lanes[n] = peak[n];
  top = reduce_rows<Max, T>(lanes);
  for (int n = 0; n < L; ++n) lanes[n] = times_power_of_two<T>(sum[n], peak[n] - top[n]);
  return reduce_rows<Add, T>(lanes);
}

// Activations of one neuron for up to kLanes rows, where lanes are inputs. `near` is a guess, and becomes what is true.
template <class T>
void forward_few(const T* components, const T* x, int64_t rows, int64_t panels, bool& near, T* result) {
  if (near) {
    const Vec<T> sum = plain_few<T>(components, x, rows, panels);
    near = is_near<T>(sum);
    store<T>(result, log2<T>(sum) * static_cast<T>(kLn2));
    if (near) return;
  }
  Vec<T> top;
  const Vec<T> sum = peaked_few<T>(components, x, rows, panels, top), a = log2<T>(sum, top);
  near = all_between<T>(a, -kNear, kNear);
  store<T>(result, a * static_cast<T>(kLn2));
}

// Activations of one neuron for R kLanes rows, where lanes are rows.
template <class T, int R>
void forward_many(const T* components, const T* x, int64_t inputs, bool& near, T* result) {
  constexpr int L = kLanes<T>;
  if (near) {
    const auto found = sum_terms<Plain, T, Lanes::rows, R>(components, x, inputs);
    for (int i = 0; i < R; ++i) {
      near &= is_near<T>(found.sum[i]);
      store<T>(result + i * L, log2<T>(found.sum[i]) * static_cast<T>(kLn2));
    }
    if (near) return;
  }
  const auto found = sum_terms<Peaked, T, Lanes::rows, R>(components, x, inputs);
  near = true;
  for (int i = 0; i < R; ++i) {
    const Vec<T> a = log2<T>(found.sum[i], found.peak[i]);
    near &= all_between<T>(a, -kNear, kNear);
    store<T>(result + i * L, a * static_cast<T>(kLn2));
  }
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
    const int64_t padded = ceil_div(rows, L) * L;
    T* x = scratch<T>((rows + L) * panels * L + L * padded);
    T *rest = x + by_rows * p.inputs, *unturned = x + rows * panels * L, *result = unturned + L * panels * L;
    for (int64_t i = 0; i < by_rows; i += L) {
      T* turned = x + i * p.inputs;
      const int64_t given = p.x.k == 0 ? 1 : p.inputs;  // 1: the same for all components
      for (int64_t n = 0; n < L; ++n)
        pack_row<T>(p, group, row0 + i + n, 0, ceil_div(given, L), unturned + n * panels * L);
      turn<T>(L, given, [&](int64_t n) { return unturned + n * panels * L; }, [&](int64_t k) { return turned + k * L; });
      for (int64_t k = given; k < p.inputs; ++k) store<T>(turned + k * L, load(turned));
    }
    for (int64_t i = by_rows; i < rows; ++i)
      pack_row<T>(p, group, row0 + i, 0, panels, rest + (i - by_rows) * panels * L);
    T* out = static_cast<T*>(p.out.data) + p.out.group[group];
    bool near = true;
    for (int64_t j = j0; j < j1; j += L) {
      const int64_t neurons = std::min<int64_t>(L, j1 - j);
      for (int64_t n = 0; n < neurons; ++n) {
        const T* component = components.get() + (group * p.neurons + j + n) * width;
        T* to = result + n * padded;
        int64_t i = 0;
        for (; i + 2 * L <= by_rows; i += 2 * L)
          forward_many<T, 2>(component, x + i * p.inputs, p.inputs, near, to + i);
        for (; i < by_rows; i += L) forward_many<T, 1>(component, x + i * p.inputs, p.inputs, near, to + i);
        for (; i < rows; i += L)
          forward_few<T>(component, rest + (i - by_rows) * panels * L, std::min<int64_t>(L, rows - i), panels, near, to + i);
      }
      turn<T>(neurons, rows, [&](int64_t n) { return result + n * padded; },
              [&](int64_t i) { return out + p.out.row[row0 + i] + j; });
    }
  });
}

// One panel of inputs of one neuron, some rows: adds to dx, and returns sum w, sum w z, sum w z^2 with
// w = upstream 2^(t - a), or upstream 2^t where `near`, and z = (x - loc) r.
template <class T, bool near, bool dx_wanted>
std::array<Vec<T>, 3> backward_panel(const T* component, const T* x, const T* a, const T* upstream, int64_t rows, T* dx) {
  constexpr int L = kLanes<T>;
  const Vec<T> loc = load(component), r = load(component + L), c = load(component + 2 * L);
  Vec<T> w_sum{}, q_sum{}, s_sum{};
  auto add = [&](int64_t first, auto count) {
    Vec<T> z[count], e[count];
#pragma GCC unroll 8
    for (int n = 0; n < count; ++n) {
      z[n] = (load(x + (first + n) * L) - loc) * r;
      e[n] = term<T>(z[n], c);
      if constexpr (!near) e[n] -= a[first + n];
    }
    exp2<T, count>(e);
#pragma GCC unroll 8
    for (int n = 0; n < count; ++n) {
      const Vec<T> w = e[n] * upstream[first + n], q = w * z[n];
      w_sum += w;
      q_sum += q;
      s_sum += q * z[n];
      if constexpr (dx_wanted) store<T>(dx + (first + n) * L, load(dx + (first + n) * L) + q * r);
    }
  };
  int64_t i = 0;
  for (; i + kRowsAtOnce <= rows; i += kRowsAtOnce) add(i, std::integral_constant<int, kRowsAtOnce>{});
  for (; i < rows; ++i) add(i, std::integral_constant<int, 1>{});
  return {w_sum, q_sum, s_sum};
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

template <class T, bool near, bool dx_wanted>
void backward_task(const Problem& p, const Gradients& g, const Target<T>& to, int64_t panel, int64_t group,
                   int64_t row0, int64_t rows, int64_t j0, int64_t j1, const T* a, const T* upstream) {
  constexpr int L = kLanes<T>;
  const int64_t k0 = panel * L, count = std::min<int64_t>(L, p.inputs - k0), neurons = j1 - j0;
  T* x = scratch<T>(rows * 2 * L + neurons * 3 * L);
  T *dx = x + rows * L, *components = dx + rows * L;
  for (int64_t i = 0; i < rows; ++i) pack_row<T>(p, group, row0 + i, panel, 1, x + i * L);
  if constexpr (dx_wanted) std::memset(dx, 0, sizeof(T) * rows * L);
  for (int64_t j = 0; j < neurons; ++j) pack_neuron<T>(p, group, j0 + j, panel, 1, components + j * 3 * L);
  for (int64_t j = 0; j < neurons; ++j) {
    const T* component = components + j * 3 * L;
    const auto [w_sum, q_sum, s_sum] =
        backward_panel<T, near, dx_wanted>(component, x, a + j * rows, upstream + j * rows, rows, dx);
    const Vec<T> r = load(component + L), inverse_scale = r * static_cast<T>(1.0 / kRootHalfLog2E);
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
    put(to.log_weights, g.log_weights, w_sum);
    put(to.loc, g.loc, q_sum * r * static_cast<T>(2.0 * kLn2));
    put(to.scale, g.scale, (s_sum * static_cast<T>(2.0 * kLn2) - w_sum) * inverse_scale);
  }
  if constexpr (dx_wanted)
    for (int64_t i = 0; i < rows; ++i) {
      T* at = to.x + g.x.group[group] + g.x.row[row0 + i] + k0 * g.x.k;
      add_lanes<T>(load(dx + i * L) * static_cast<T>(-2.0 * kLn2), count, at, g.x.k);
    }
}

template <class T>
bool is_far(T a) {
  return (std::abs(a) > kNear) & (a != kImpossible<T>);
}

// Divides upstream gradients by 2^a, if all are `near`: neither these quotients nor 2^t can leave the range of normal
// numbers then. Otherwise does nothing, and says so.
template <class T>
bool divide_by_activations(const T* a, T* upstream, int64_t count) {
  constexpr int L = kLanes<T>;
  constexpr T largest = static_cast<T>(0x1p90), smallest = static_cast<T>(0x1p-90);
  int odd = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T size = std::abs(upstream[i]);
    odd |= !((std::abs(a[i]) <= kNear) & (size <= largest) & ((size >= smallest) | (size == 0)));
  }
  if (odd != 0) return false;
  constexpr int N = 4;
  int64_t i = 0;
  for (; i + N * L <= count; i += N * L) {
    Vec<T> power[N];
    for (int n = 0; n < N; ++n) power[n] = -load_unaligned(a + i + n * L);
    exp2<T, N>(power);
    for (int n = 0; n < N; ++n) {
      const Vec<T> value = power[n] * load_unaligned(upstream + i + n * L);
      std::memcpy(upstream + i + n * L, &value, sizeof value);
    }
  }
  for (; i < count; ++i) upstream[i] *= std::exp2(-a[i]);
  return true;
}

// Where a is far from 0, its rounding makes nonsense of 2^(t - a). Puts in its place the peak of the terms, a whole number
// and exact, and divides the upstream gradient by what is left of 2^a, sum_k 2^(t_k - peak). For some rows of one neuron.
template <class T>
void replace_far(const Problem& p, int64_t group, int64_t row0, int64_t rows, int64_t neuron, T* a, T* upstream) {
  constexpr int L = kLanes<T>;
  const int64_t panels = ceil_div(p.inputs, L);
  T *components = nullptr, *x = nullptr;
  int64_t far[L], count = 0;
  auto replace = [&] {
    Vec<T> top;
    const Vec<T> sum = peaked_few<T>(components, x, count, panels, top);
    for (int64_t n = 0; n < count; ++n) a[far[n]] = top[n], upstream[far[n]] /= sum[n];
    count = 0;
  };
  for (int64_t i = 0; i < rows; ++i) {
    if (!is_far(a[i])) continue;
    if (components == nullptr) {
      components = scratch<T>((3 + L) * panels * L), x = components + 3 * panels * L;
      pack_neuron<T>(p, group, neuron, 0, panels, components);
    }
    pack_row<T>(p, group, row0 + i, 0, panels, x + count * panels * L);
    far[count++] = i;
    if (count == L) replace();
  }
  if (count > 0) replace();
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
  std::vector<char> near(p.groups * row_blocks);
  pool.run(p.groups * row_blocks, [&](int64_t task) {
    const int64_t group = task / row_blocks, row0 = task % row_blocks * row_block;
    const int64_t rows = std::min(row_block, p.rows - row0);
    const int64_t base = group * per_group + row0 * p.neurons;
    const T* from_a = static_cast<const T*>(p.out.data) + p.out.group[group];
    const T* from_g = static_cast<const T*>(g.upstream.data) + g.upstream.group[group];
    turn<T>(rows, p.neurons, [&](int64_t i) { return from_a + p.out.row[row0 + i]; },
            [&](int64_t j) { return a + base + j * rows; });
    turn<T>(rows, p.neurons, [&](int64_t i) { return from_g + g.upstream.row[row0 + i]; },
            [&](int64_t j) { return upstream + base + j * rows; });
    for (int64_t i = base; i < base + rows * p.neurons; ++i) {
      const bool impossible = a[i] == -std::numeric_limits<T>::infinity();
      a[i] = impossible ? kImpossible<T> : a[i] * static_cast<T>(kLog2E);
    }
    near[task] = divide_by_activations<T>(a + base, upstream + base, rows * p.neurons);
  });
  if (std::any_of(near.begin(), near.end(), [](char is) { return !is; }))
    pool.run(p.groups * row_blocks * p.neurons, [&](int64_t task) {
      const int64_t group = task / (row_blocks * p.neurons), row0 = task / p.neurons % row_blocks * row_block;
      const int64_t neuron = task % p.neurons, rows = std::min(row_block, p.rows - row0);
      const int64_t at = group * per_group + row0 * p.neurons + neuron * rows;
      if (near[task / p.neurons]) return;
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
      const bool dx_wanted = to.x != nullptr;
      const auto run = near[group * row_blocks + block]
                           ? (dx_wanted ? backward_task<T, true, true> : backward_task<T, true, false>)
                           : (dx_wanted ? backward_task<T, false, true> : backward_task<T, false, false>);
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

// The limit that the benchmarks compare with, and the test of the polynomial: 2^from, `repeats` times over; count in whole
// vectors.
template <class T>
void exponentials(const T* from, T* to, int64_t count, int64_t repeats) {
  constexpr int L = kLanes<T>;
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    int64_t i = 0;
    auto put = [&](auto vectors) {
      Vec<T> x[vectors];
      for (int n = 0; n < vectors; ++n) x[n] = load_unaligned(from + i + n * L);
      exp2<T, vectors>(x);
      for (int n = 0; n < vectors; ++n) std::memcpy(to + i + n * L, &x[n], sizeof x[n]);
      i += vectors * L;
    };
    while (i + 4 * L <= count) put(std::integral_constant<int, 4>{});
    while (i + L <= count) put(std::integral_constant<int, 1>{});
    asm volatile("" ::"r"(from), "r"(to) : "memory");  // every repetition counts
  }
}

}  // namespace

extern const ugmm::Kernels kKernels;
const ugmm::Kernels kKernels = {forward<float>,  forward<double>,    backward<float>,
                                backward<double>, exponentials<float>, exponentials<double>};

}  // namespace UGMM_ISA
