// Vectors of one instruction set, by the vector extensions of GCC and Clang. This file is compiled once per instruction
// set (see CMakeLists.txt); the namespace keeps the copies apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

namespace UGMM_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE4.1, NEON
#endif
#if defined(__SSE4_1__)
constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#endif

template <class T>
struct Types;
template <>
struct Types<float> {
  typedef float V __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t I __attribute__((vector_size(kVectorBytes), may_alias));
  static constexpr int kMantissa = 23;
  static constexpr int32_t kBias = 127;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
};
template <>
struct Types<double> {
  typedef double V __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int64_t I __attribute__((vector_size(kVectorBytes), may_alias));
  static constexpr int kMantissa = 52;
  static constexpr int64_t kBias = 1023;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
};

template <class T>
using Vec = typename Types<T>::V;
template <class T>
using Int = typename Types<T>::I;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> load(const T* from) {  // aligned
  return *reinterpret_cast<const Vec<T>*>(from);
}

template <class T>
inline void store(T* to, Vec<T> value) {  // aligned
  *reinterpret_cast<Vec<T>*>(to) = value;
}

template <class T>
inline Vec<T> load_unaligned(const T* from) {
  Vec<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline Vec<T> splat(T value) {
  return value - Vec<T>{};
}

// The larger of a and b; b where either is NaN.
template <class T>
inline Vec<T> maximum(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}
#if defined(__AVX512F__)
template <>
inline Vec<float> maximum<float>(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
}
template <>
inline Vec<double> maximum<double>(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_max_pd((__m512d)a, (__m512d)b);
}
#elif defined(__AVX2__)
template <>
inline Vec<float> maximum<float>(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
}
template <>
inline Vec<double> maximum<double>(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm256_max_pd((__m256d)a, (__m256d)b);
}
#endif

// 2^f for |f| <= 1/2 as a polynomial, from the highest power, exactly 1 at 0. For float the coefficients that round best:
// evaluation included the error is below 2 units in the last place, 2.1 without fused multiply-add. For double the minimax
// polynomial of the relative error, which is below 3.1e-18.
template <class T>
constexpr T kExp2[] = {};
template <>
constexpr float kExp2<float>[] = {1.32260763e-3f, 9.67162661e-3f, 5.55085987e-2f, 0.240222365f, 0.693146884f, 1.0f};
template <>
constexpr double kExp2<double>[] = {
    4.4352809446103361611e-10, 7.0741056262456593708e-9, 1.0178198033328527662e-7, 1.3215433089594629037e-6,
    1.52527334899608046e-5,    1.5403530462514613026e-4, 1.3333558146789950323e-3, 9.6181291075883350833e-3,
    5.5504108664819921483e-2,  0.24022650695910156205,   0.69314718055994533046,   1.0};

// N polynomials at once, step by step: a processor that looks ahead little has always N instructions ready.
template <class T, int N>
inline void exp2_fraction(Vec<T> (&f)[N]) {
  constexpr int terms = std::size(kExp2<T>);
  Vec<T> p[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) p[n] = f[n] * kExp2<T>[0] + kExp2<T>[1];
#pragma GCC unroll 16
  for (int power = 2; power < terms; ++power)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) p[n] = p[n] * f[n] + kExp2<T>[power];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) f[n] = p[n];
}

// The nearest whole number, ties to even.
template <class T>
inline Vec<T> round_whole(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_roundscale_ps((__m512)x, kRound);
  else return (Vec<T>)_mm512_roundscale_pd((__m512d)x, kRound);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_round_ps((__m256)x, kRound);
  else return (Vec<T>)_mm256_round_pd((__m256d)x, kRound);
#elif defined(__SSE4_1__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm_round_ps((__m128)x, kRound);
  else return (Vec<T>)_mm_round_pd((__m128d)x, kRound);
#else
  for (int i = 0; i < kLanes<T>; ++i) x[i] = std::nearbyint(x[i]);  // one instruction on aarch64
  return x;
#endif
}

#if !defined(__AVX512F__)
// 2^n for a whole n from -bias, whose power is taken for 0, to bias + 1, whose power is infinite.
template <class T>
inline Vec<T> power_of_two(Vec<T> n) {
  using S = Types<T>;
  return (Vec<T>)(((Int<T>)(n + S::kMagic) + S::kBias) << S::kMantissa);
}
#endif

// p 2^n for a whole n <= 2: 0, or subnormal, where 2^n is below the smallest normal number; 0 for an n of -inf, also if p
// is NaN, as the difference of infinities is; else NaN where p is NaN.
template <class T>
inline Vec<T> times_power_of_two(Vec<T> p, Vec<T> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_scalef_ps((__m512)p, (__m512)n);
  else return (Vec<T>)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
  constexpr T lowest = static_cast<T>(-Types<T>::kBias);
  const Vec<T> value = p * power_of_two<T>(maximum<T>(splat(lowest), n));
  return (Vec<T>)((Int<T>)value & ~(n == -std::numeric_limits<T>::infinity()));
#endif
}

// 2^x to 2 ulp, N at once: 0, or subnormal, where it is below the smallest normal number; inf, or NaN, where it is too large.
template <class T, int N>
inline void exp2(Vec<T> (&x)[N]) {
  Vec<T> f[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
#if !defined(__AVX512F__)
    constexpr T lowest = static_cast<T>(-Types<T>::kBias), highest = 1 - lowest;
    x[n] = maximum<T>(splat(lowest), x[n]);
    x[n] = x[n] > highest ? splat(highest) : x[n];
#endif
    const Vec<T> whole = round_whole<T>(x[n]);
    f[n] = x[n] - whole;
    x[n] = whole;
  }
  exp2_fraction<T, N>(f);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
#if defined(__AVX512F__)
    x[n] = times_power_of_two<T>(f[n], x[n]);
#else
    x[n] = f[n] * power_of_two<T>(x[n]);
#endif
  }
}

// Whether all lanes are in [low, high].
template <class T>
inline bool all_between(Vec<T> x, T low, T high) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const auto above = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(low), _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(above, (__m512)x, (__m512)splat(high), _CMP_LE_OQ) == 0xffff;
  } else {
    const auto above = _mm512_cmp_pd_mask((__m512d)x, (__m512d)splat(low), _CMP_GE_OQ);
    return _mm512_mask_cmp_pd_mask(above, (__m512d)x, (__m512d)splat(high), _CMP_LE_OQ) == 0xff;
  }
#else
  const auto inside = (x >= low) & (x <= high);
  auto all = inside[0];
  for (int i = 1; i < kLanes<T>; ++i) all &= inside[i];
  return all != 0;
#endif
}

// log2((1 + t) / (1 - t)) / t as a polynomial in u = t^2, |t| <= 3 - 2 sqrt(2); relative error 7e-10 and 1.2e-18.
inline Vec<float> log2_series(Vec<float> u) {
  Vec<float> p = splat(0.43173790125090644322f);
  p = p * u + 0.57671430953748597606f;
  p = p * u + 0.96179884829926069621f;
  return p * u + 2.8853900797881197304f;
}

inline Vec<double> log2_series(Vec<double> u) {
  Vec<double> p = splat(0.21367305373646504817);
  p = p * u + 0.22091164900940339917;
  p = p * u + 0.26233440989760944727;
  p = p * u + 0.32059853377614855336;
  p = p * u + 0.4121985858524766243;
  p = p * u + 0.577078016345464164;
  p = p * u + 0.96179669392598983056;
  return p * u + 2.8853900817779268114;
}

// log2(x 2^power) for x >= 0 and a whole power: -inf at 0, inf at inf, NaN for NaN.
template <class T>
inline Vec<T> log2(Vec<T> x, Vec<T> power = Vec<T>{}) {
  using S = Types<T>;
  constexpr T smallest = std::numeric_limits<T>::min();
  constexpr T scale = static_cast<T>(int64_t{1} << 30);
  const auto tiny = x < smallest;
  const Vec<T> normal = tiny ? x * scale : x;
  // Cut at sqrt(1/2): the mantissa is in [sqrt(1/2), sqrt(2)).
  const Int<T> half = (Int<T>)splat(static_cast<T>(0.70710678118654752440));
  const Int<T> exponent = ((Int<T>)normal - half) >> S::kMantissa;
  const Vec<T> mantissa = (Vec<T>)((Int<T>)normal - (exponent << S::kMantissa));
  const Vec<T> t = (mantissa - T{1}) / (mantissa + T{1});
  const Vec<T> whole = __builtin_convertvector(exponent, Vec<T>) - (tiny ? splat(T{30}) : splat(T{0})) + power;
  const Vec<T> value = t * log2_series(t * t) + whole;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const Vec<T> upper = x < infinity ? value : x;  // inf and NaN pass
  return x == T{0} ? splat(-infinity) : upper;
}

struct Add {
  template <class T>
  static Vec<T> apply(Vec<T> a, Vec<T> b) {
    return a + b;
  }
};
struct Max {
  template <class T>
  static Vec<T> apply(Vec<T> a, Vec<T> b) {
    return maximum<T>(a, b);
  }
};

// Lane `lane` of the first (or second) halves of all segments of a, then of b.
constexpr int segment_half(int lanes, int segment, int lane, bool second) {
  const int half = segment / 2, number = lane / half, per_vector = lanes / segment;
  return (number < per_vector ? 0 : lanes) + (number % per_vector) * segment + lane % half + (second ? half : 0);
}

template <class Op, class T, int segment, int... lane>
inline Vec<T> fold(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  constexpr int lanes = kLanes<T>;
  return Op::template apply<T>(__builtin_shufflevector(a, b, segment_half(lanes, segment, lane, false)...),
                               __builtin_shufflevector(a, b, segment_half(lanes, segment, lane, true)...));
}

// Lane i of the result is the reduction of all lanes of rows[i]; rows is used up.
template <class Op, class T, int segment = kLanes<T>>
inline Vec<T> reduce_rows(Vec<T>* rows) {
  if constexpr (segment == 1) {
    return rows[0];
  } else {
    for (int i = 0; i < segment / 2; ++i)
      rows[i] = fold<Op, T, segment>(rows[2 * i], rows[2 * i + 1], std::make_integer_sequence<int, kLanes<T>>{});
    return reduce_rows<Op, T, segment / 2>(rows);
  }
}

// Swaps, in pairs of rows `half` apart, the second half of a segment of the one with the first half of the other's.
template <class T, int half, int... lane>
inline void swap_halves(Vec<T>* rows, std::integer_sequence<int, lane...>) {
  constexpr int L = kLanes<T>;
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    if (i & half) continue;
    const Vec<T> a = rows[i], b = rows[i + half];
    rows[i] = __builtin_shufflevector(a, b, (lane & half ? L + lane - half : lane)...);
    rows[i + half] = __builtin_shufflevector(a, b, (lane & half ? L + lane : lane + half)...);
  }
}

// Lane i of rows[j] becomes lane j of rows[i].
template <class T, int half = kLanes<T> / 2>
inline void transpose(Vec<T>* rows) {
  swap_halves<T, half>(rows, std::make_integer_sequence<int, kLanes<T>>{});
  if constexpr (half > 1) transpose<T, half / 2>(rows);
}

}  // namespace UGMM_ISA
