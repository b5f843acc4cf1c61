/* What CUDA C has beyond C++, so that g++ compiles kernels for the host. It stands before every source.
 *
 * A thread of a block is a fibre; shim.cpp runs them. Each access to memory is a call into shim.cpp, since kernels are
 * compiled with -fsanitize=kernel-address: what lies outside of the blocks of device memory is found where it is done.
 */
typedef __SIZE_TYPE__ size_t;
typedef decltype(nullptr) nullptr_t;

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
extern "C" uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("hal_shared")))
extern char __start_hal_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_hal_shared[] __attribute__((weak, visibility("hidden")));

/* Waits, and what threads of a warp give each other. */

extern "C" void hal_shim_wait(unsigned mask);
extern "C" void *hal_shim_exchange(unsigned mask, const void *value, int bytes, int from);
static inline void __syncthreads() { hal_shim_wait(0); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { hal_shim_wait(mask); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

static inline int hal_shim_lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}
template <class T> inline T hal_shim_shuffle(unsigned mask, T value, int from, int width) {
  const int lane = hal_shim_lane(), first = lane - lane % width;
  return *(T *)hal_shim_exchange(mask, &value, sizeof(T), from >= first && from < first + width ? from : lane);
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = hal_shim_lane();
  return hal_shim_shuffle(mask, value, lane - lane % width + from % width, width);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return hal_shim_shuffle(mask, value, hal_shim_lane() + (int)by, width);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return hal_shim_shuffle(mask, value, hal_shim_lane() - (int)by, width);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
  return hal_shim_shuffle(mask, value, hal_shim_lane() ^ with, width);
}

/* One thread is at work at any time. */

template <class T> inline T atomicAdd(T *place, T value) { T old = *place; *place = old + value; return old; }
template <class T> inline T atomicMax(T *place, T value) { T old = *place; if (value > old) *place = value; return old; }
template <class T> inline T atomicMin(T *place, T value) { T old = *place; if (value < old) *place = value; return old; }
template <class T> inline T atomicExch(T *place, T value) { T old = *place; *place = value; return old; }
template <class T> inline T atomicCAS(T *place, T wanted, T value) {
  T old = *place;
  if (old == wanted) *place = value;
  return old;
}
template <class T> inline T __ldg(const T *place) { return *place; }

/* Numbers. */

static inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
static inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
static inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
static inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
static inline long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
static inline double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }

#define HAL_SHIM_1(name)                       \
  extern "C" double name(double) noexcept;     \
  extern "C" float name##f(float) noexcept;    \
  static inline float name(float x) { return name##f(x); }
#define HAL_SHIM_2(name)                              \
  extern "C" double name(double, double) noexcept;    \
  extern "C" float name##f(float, float) noexcept;    \
  static inline float name(float x, float y) { return name##f(x, y); }
HAL_SHIM_1(fabs) HAL_SHIM_1(floor) HAL_SHIM_1(ceil) HAL_SHIM_1(trunc) HAL_SHIM_1(rint) HAL_SHIM_1(round)
HAL_SHIM_1(sqrt) HAL_SHIM_1(cbrt) HAL_SHIM_1(exp) HAL_SHIM_1(exp2) HAL_SHIM_1(expm1)
HAL_SHIM_1(log) HAL_SHIM_1(log2) HAL_SHIM_1(log10) HAL_SHIM_1(log1p)
HAL_SHIM_1(sin) HAL_SHIM_1(cos) HAL_SHIM_1(tan) HAL_SHIM_1(asin) HAL_SHIM_1(acos) HAL_SHIM_1(atan)
HAL_SHIM_1(sinh) HAL_SHIM_1(cosh) HAL_SHIM_1(tanh) HAL_SHIM_1(asinh) HAL_SHIM_1(acosh) HAL_SHIM_1(atanh)
HAL_SHIM_1(erf) HAL_SHIM_1(erfc) HAL_SHIM_1(lgamma) HAL_SHIM_1(tgamma)
HAL_SHIM_2(pow) HAL_SHIM_2(fmod) HAL_SHIM_2(hypot) HAL_SHIM_2(atan2) HAL_SHIM_2(copysign) HAL_SHIM_2(nextafter)
HAL_SHIM_2(fmin) HAL_SHIM_2(fmax)
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;
static inline float ldexp(float x, int n) { return ldexpf(x, n); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline float rsqrt(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

/* Instructions of PTX, each a function: driver.py writes `asm("cvt.f32.f16 ...")` as a call of these. */

extern "C" float hal_ptx_cvt_f32_f16(unsigned short bits);
extern "C" unsigned short hal_ptx_cvt_rn_f16_f32(float x);

/* A kernel as driver.py calls it: its own parameters say how its arguments are taken from their addresses. */

extern "C" int hal_shim_run(void (*thread)(char *), char *packed, const unsigned *shape, char *shared, char *shared_end);
template <int...> struct hal_shim_numbers {};
template <auto kernel> struct hal_shim_entry;
template <class... A, void (*kernel)(A...)> struct hal_shim_entry<kernel> {
  static long size(long at, long bytes, long alignment) { return (at + alignment - 1) / alignment * alignment + bytes; }
  static long pack(void *const *given, char *into) {
    long at = 0, i = 0;
    ((at = size(at, sizeof(A), alignof(A)), into ? __builtin_memcpy(into + at - sizeof(A), given[i++], sizeof(A)) : into),
     ...);
    return at;
  }
  static void thread(char *packed) {
    void *places[sizeof...(A) + 1];
    long at = 0, i = 0;
    ((at = size(at, sizeof(A), alignof(A)), places[i++] = packed + at - sizeof(A)), ...);
    call(places, hal_shim_numbers<__integer_pack(sizeof...(A))...>());
  }
  template <int... i> static void call(void *const *places, hal_shim_numbers<i...>) { kernel(*(A *)places[i]...); }
};
#define HAL_SHIM_ENTRY(name)                                                                                       \
  extern "C" long hal_pack_##name(void *const *given, char *into) {                                                \
    return hal_shim_entry<name>::pack(given, into);                                                                \
  }                                                                                                                \
  extern "C" int hal_run_##name(const unsigned *shape, char *packed) {                                             \
    return hal_shim_run(hal_shim_entry<name>::thread, packed, shape, __start_hal_shared, __stop_hal_shared);       \
  }                                                                                                                \
  extern "C" long hal_shared_##name() { return __stop_hal_shared - __start_hal_shared; }
