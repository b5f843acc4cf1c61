/* Runs the blocks of a kernel: a fibre for each thread that waits for others, and a check of each access to memory.
 *
 * Blocks run one after another, and so do the threads of a block, until they wait. A thread that waits for nobody ends
 * where it began, and its fibre takes the next one. In which order threads go on turns around at every wait, and with
 * every block and launch: what is right in one order alone is found.
 */
#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

struct uint3 { unsigned x, y, z; };
extern "C" {
uint3 threadIdx, blockIdx, blockDim, gridDim;
char hal_shim_report[512];  // what went wrong in the last run
}

namespace {

enum Outcome { DONE, ILLEGAL_ADDRESS, STUCK, STACK, ARITHMETIC };
const size_t STACK_BYTES = 1 << 17, PAGE = 4096;
const unsigned char UNWRITTEN = 0xff;  // of shared memory: NaN in every type

struct Fibre {
  jmp_buf place;
  ucontext_t begin;
  char *stack;
  bool begun;
  unsigned thread;
  uint3 index;        // the same in three numbers
  unsigned mask;      // of the warp's lanes that it waits for, 0 if for all threads of the block
  char value[16];     // what it gives to the others of its warp
};

std::vector<Fibre *> all, idle, waiting;
jmp_buf scheduler;
Fibre *current;
void (*kernel_thread)(char *);
char *kernel_arguments;
unsigned count, next_thread;
bool turned;
unsigned long runs;
Fibre *of_thread[1024];

uint3 index_of(unsigned thread) {
  return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

void work() {
  for (;;) {
    while (next_thread < count) {
      const unsigned n = next_thread++;
      current->thread = turned ? count - 1 - n : n;
      of_thread[current->thread] = current;
      threadIdx = current->index = index_of(current->thread);
      kernel_thread(kernel_arguments);
      of_thread[current->thread] = nullptr;
    }
    idle.push_back(current);
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
  }
}

Fibre *fibre() {
  if (idle.empty()) {
    Fibre *made = new Fibre();
    made->stack = (char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(made->stack, PAGE, PROT_NONE);
    all.push_back(made);
    return made;
  }
  Fibre *found = idle.back();
  idle.pop_back();
  return found;
}

/* Let a fibre go on until it waits or has no more threads to run. */
void resume(Fibre *f) {
  current = f;
  if (_setjmp(scheduler) != 0) return;
  if (f->begun) _longjmp(f->place, 1);
  f->begun = true;
  getcontext(&f->begin);
  f->begin.uc_stack.ss_sp = f->stack;
  f->begin.uc_stack.ss_size = STACK_BYTES;
  f->begin.uc_link = nullptr;
  makecontext(&f->begin, work, 0);
  setcontext(&f->begin);
}

/* The fibres whose wait is over: of whole blocks, or of the lanes of warps that wait for each other. */
std::vector<Fibre *> released() {
  std::vector<Fibre *> ready, still;
  unsigned of_block = 0;
  for (Fibre *f : waiting) of_block += f->mask == 0;
  if (of_block == count) {
    ready.swap(waiting);
    return ready;
  }
  for (Fibre *f : waiting) {
    bool there = f->mask != 0;
    for (unsigned lane = 0; lane < 32 && there; lane++) {
      const unsigned thread = f->thread / 32 * 32 + lane;
      if (f->mask >> lane & 1 && thread < count) there = of_thread[thread] != nullptr && of_thread[thread]->mask == f->mask;
    }
    (there ? ready : still).push_back(f);
  }
  waiting.swap(still);
  return ready;
}

jmp_buf outside;
void *alternate_stack;

[[noreturn]] void leave(Outcome why) { _longjmp(outside, why); }

bool on_guard_page(const char *place) {
  for (Fibre *f : all)
    if (place >= f->stack && place < f->stack + PAGE) return true;
  return false;
}

void trapped(int signal, siginfo_t *info, void *) {
  Outcome why = signal == SIGFPE ? ARITHMETIC : on_guard_page((char *)info->si_addr) ? STACK : ILLEGAL_ADDRESS;
  snprintf(hal_shim_report, sizeof hal_shim_report, "%s", why == ARITHMETIC ? "an integer is divided by zero" :
           why == STACK ? "a thread has more variables than its stack holds" : "");
  if (why == ILLEGAL_ADDRESS)
    snprintf(hal_shim_report, sizeof hal_shim_report, "an access to %p, where nothing is", info->si_addr);
  leave(why);
}

void run_block(char *shared, char *shared_end) {
  if (shared_end != shared) memset(shared, UNWRITTEN, shared_end - shared);
  next_thread = 0;
  while (next_thread < count) resume(fibre());
  while (!waiting.empty()) {
    std::vector<Fibre *> ready = released();
    if (ready.empty()) {
      threadIdx = waiting[0]->index;
      snprintf(hal_shim_report, sizeof hal_shim_report,
               "%zu of %u threads wait for others that do not come", waiting.size(), count);
      leave(STUCK);
    }
    for (size_t i = ready.size(); i--;) resume(ready[i]);
  }
}

/* Device memory: one reservation for all devices, and beside it how many bytes of each eight belong to a block. */
uintptr_t base, bytes;
unsigned shift;  // of the bytes of one device
unsigned char *valid;
unsigned long long reachable;

inline bool is_reachable(uintptr_t address) { return reachable >> ((address - base) >> shift) & 1; }

__attribute__((noinline)) void refuse(uintptr_t address, size_t size, const char *what) {
  snprintf(hal_shim_report, sizeof hal_shim_report, "%s %zu bytes at %#zx, %s", what, size, (size_t)address,
           is_reachable(address) ? "outside of all blocks of device memory" : "on a device that this one does not reach");
  leave(ILLEGAL_ADDRESS);
}

inline bool is_valid(uintptr_t address, size_t size) {
  uintptr_t at = address - base, end = at + size;
  while (at < end) {
    const uintptr_t stop = (at | 7) + 1 < end ? (at | 7) + 1 : end;
    if (valid[at >> 3] < stop - (at & ~(uintptr_t)7)) return false;
    at = stop;
  }
  return true;
}

inline void check(uintptr_t address, size_t size, const char *what) {
  if (address - base >= bytes) return;  // variables, arguments and shared memory; the rest traps
  if (!is_reachable(address) || !is_valid(address, size)) refuse(address, size, what);
}

}  // namespace

extern "C" {

void hal_shim_memory(uintptr_t address, uintptr_t size, unsigned shift_of_one, unsigned char *of_valid) {
  base = address, bytes = size, shift = shift_of_one, valid = of_valid;
}

void hal_shim_block(uintptr_t address, size_t size, int there) {
  const uintptr_t at = address - base;
  memset(valid + at / 8, there ? 8 : 0, size / 8);
  if (size % 8) valid[(at + size) / 8] = there ? size % 8 : 0;
}

int hal_shim_is_valid(uintptr_t address, size_t size) { return address - base < bytes && is_valid(address, size); }

void hal_shim_reach(unsigned long long devices) { reachable = devices; }

int hal_shim_run(void (*thread)(char *), char *packed, const unsigned *shape, char *shared, char *shared_end) {
  gridDim = {shape[0], shape[1], shape[2]};
  blockDim = {shape[3], shape[4], shape[5]};
  count = shape[3] * shape[4] * shape[5];
  kernel_thread = thread, kernel_arguments = packed;
  struct sigaction ours = {}, before[3];
  const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
  stack_t stack = {}, stack_before;
  if (!alternate_stack) alternate_stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack.ss_sp = alternate_stack, stack.ss_size = STACK_BYTES;
  sigaltstack(&stack, &stack_before);
  ours.sa_sigaction = trapped;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 3; i++) sigaction(signals[i], &ours, &before[i]);
  runs++;
  const int outcome = _setjmp(outside);
  if (outcome == DONE) {
    unsigned long number = runs;
    for (unsigned z = 0; z < gridDim.z; z++)
      for (unsigned y = 0; y < gridDim.y; y++)
        for (unsigned x = 0; x < gridDim.x; x++) {
          blockIdx = {x, y, z};
          turned = number++ & 1;
          run_block(shared, shared_end);
        }
  } else {  // what was begun is never ended
    waiting.clear();
    idle = all;
    for (Fibre *f : all) f->begun = false;
    const size_t used = strlen(hal_shim_report);
    snprintf(hal_shim_report + used, sizeof hal_shim_report - used, " (thread %u %u %u of block %u %u %u)",
             threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
  }
  for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], nullptr);
  sigaltstack(&stack_before, nullptr);
  return outcome;
}

void hal_shim_wait(unsigned mask) {
  Fibre *self = current;
  self->mask = mask;
  waiting.push_back(self);
  if (_setjmp(self->place) == 0) _longjmp(scheduler, 1);
  threadIdx = self->index;
}

void *hal_shim_exchange(unsigned mask, const void *value, int size, int from) {
  Fibre *self = current;
  memcpy(self->value, value, size);
  hal_shim_wait(mask);
  const unsigned thread = self->thread / 32 * 32 + from;
  char got[sizeof self->value];
  memcpy(got, thread < count && of_thread[thread] ? of_thread[thread]->value : self->value, size);
  hal_shim_wait(mask);  // all have read
  memcpy(self->value, got, size);
  return self->value;
}

float hal_ptx_cvt_f32_f16(unsigned short bits) {
  const int exponent = bits >> 10 & 31, digits = bits & 1023;
  const float size = exponent == 31 ? (digits ? NAN : INFINITY) : exponent ? ldexpf(digits | 1024, exponent - 25) : ldexpf(digits, -24);
  return bits & 0x8000 ? -size : size;
}

unsigned short hal_ptx_cvt_rn_f16_f32(float x) {
  const unsigned sign = std::signbit(x) ? 0x8000 : 0;
  const float size = fabsf(x);
  if (std::isnan(x)) return 0x7fff;
  if (size >= 65520) return sign | 0x7c00;
  const int exponent = size < 6.103515625e-05f ? -14 : ilogbf(size);
  return sign | (unsigned)(((exponent + 14) << 10) + (int)rintf(ldexpf(size, 10 - exponent)));
}

#define CHECKED(size)                                                                           \
  void __asan_load##size##_noabort(uintptr_t address) { check(address, size, "read"); }         \
  void __asan_store##size##_noabort(uintptr_t address) { check(address, size, "wrote"); }
CHECKED(1) CHECKED(2) CHECKED(4) CHECKED(8) CHECKED(16)
void __asan_loadN_noabort(uintptr_t address, size_t size) { check(address, size, "read"); }
void __asan_storeN_noabort(uintptr_t address, size_t size) { check(address, size, "wrote"); }
void __asan_handle_no_return() {}
}
