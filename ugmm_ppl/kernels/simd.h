// Vectors of one instruction set, by the vector extensions of GCC and Clang. This file is compiled once per instruction
// set (see CMakeLists.txt); the namespace keeps the copies apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
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

// 2^f for |f| <= 1/2. For float the coefficients that round best, exactly 1 at 0: evaluation included the error is below 2
// units in the last place, 2.1 without fused multiply-add. For double the minimax polynomial of the relative error, which is below 3.1e-18.
inline Vec<float> exp2_fraction(Vec<float> f) {
  Vec<float> p = splat(1.32260763e-3f);
  p = p * f + 9.67162661e-3f;
  p = p * f + 5.55085987e-2f;
  p = p * f + 0.240222365f;
  p = p * f + 0.693146884f;
  return p * f + 1.0f;
}

inline Vec<double> exp2_fraction(Vec<double> f) {
  Vec<double> p = splat(4.4352809446103361611e-10);
  p = p * f + 7.0741056262456593708e-9;
  p = p * f + 1.0178198033328527662e-7;
  p = p * f + 1.3215433089594629037e-6;
  p = p * f + 1.52527334899608046e-5;
  p = p * f + 1.5403530462514613026e-4;
  p = p * f + 1.3333558146789950323e-3;
  p = p * f + 9.6181291075883350833e-3;
  p = p * f + 5.5504108664819921483e-2;
  p = p * f + 0.24022650695910156205;
  p = p * f + 0.69314718055994533046;
  return p * f + 1.0;
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

// x - round_whole(x); 0 or NaN for an infinite x.
template <class T>
inline Vec<T> fraction(Vec<T> x, [[maybe_unused]] Vec<T> whole) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_reduce_ps((__m512)x, kRound);
  else return (Vec<T>)_mm512_reduce_pd((__m512d)x, kRound);
#else
  return x - whole;
#endif
}

// p 2^n for a whole n <= 2: 0 where 2^n is below the smallest normal number; NaN where p is NaN.
template <class T>
inline Vec<T> times_power_of_two(Vec<T> p, Vec<T> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_scalef_ps((__m512)p, (__m512)n);
  else return (Vec<T>)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
  using S = Types<T>;
  const Vec<T> shifted = maximum<T>(splat(static_cast<T>(-S::kBias)), n) + S::kMagic;
  return p * (Vec<T>)(((Int<T>)shifted + S::kBias) << S::kMantissa);  // the bits of 2^n, or of 0
#endif
}

// The same where n may be -inf: 0 then, also if p is NaN, as a fraction of infinity is.
template <class T>
inline Vec<T> times_power_or_zero(Vec<T> p, Vec<T> n) {
#if defined(__AVX512F__)
  return times_power_of_two<T>(p, n);  // 0 already
#else
  return (Vec<T>)((Int<T>)times_power_of_two<T>(p, n) & ~(n < static_cast<T>(1 - Types<T>::kBias)));
#endif
}

#if defined(__AVX512F__)
template <class T>
inline bool all_below(Vec<T> x, T limit) {  // false if there is a NaN
  if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask((__m512)x, (__m512)splat(limit), _CMP_NLT_UQ) == 0;
  else return _mm512_cmp_pd_mask((__m512d)x, (__m512d)splat(limit), _CMP_NLT_UQ) == 0;
}
#endif

// 2^x for x <= 1, to 2 ulp: 0 where it is below the smallest normal number, NaN for NaN.
template <class T>
inline Vec<T> exp2(Vec<T> x) {
  const Vec<T> whole = round_whole<T>(x);
  return times_power_or_zero<T>(exp2_fraction(fraction<T>(x, whole)), whole);
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

// log2(x) for x >= 0: -inf at 0, inf at inf, NaN for NaN.
template <class T>
inline Vec<T> log2(Vec<T> x) {
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
  const Vec<T> whole = __builtin_convertvector(exponent, Vec<T>) - (tiny ? splat(T{30}) : splat(T{0}));
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

}  // namespace UGMM_ISA
