#include "fuzz/fuzz.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
// Of <sanitizer/allocator_interface.h>, which Debian's GCC does not ship though its runtime has the function.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, size_t),
                                                         void (*free_hook)(const volatile void*));
#endif

namespace calm::fuzz {

namespace {

// what one input may cost; inputs are at most kMaxInputBytes long
constexpr size_t kMaxInputBytes = size_t{4} << 20;
constexpr size_t kMaxAllocation = size_t{128} << 20;     // at once, bytes
constexpr size_t kMaxAddressSpace = size_t{1536} << 20;  // in all, beyond what the program has anyway
#if defined(__SANITIZE_ADDRESS__)
constexpr int kMaxSeconds = 20;  // of processor time
#else
constexpr int kMaxSeconds = 4;
#endif

enum ExitCode { kDone = 0, kRefusedSeed = 41, kWrongException = 42, kLargeAllocation = 43, kTooSlow = 44, kLeak = 45 };

// Written by the child, read by the parent.
struct Report {
  bool damaged = false;  // the seeds come first, undamaged
  uint64_t index = 0;    // of the seed or damaged input that is being read
  uint64_t accepted = 0, refused = 0;
  size_t largest_allocation = 0;  // bytes, by the present input
  char message[400] = {};
};
Report* report = nullptr;  // in memory that the child shares; null: nothing is watched

void watch_allocation(size_t size) {
  if (!report || size <= report->largest_allocation) return;
  report->largest_allocation = size;
  if (size > kMaxAllocation) {
    std::snprintf(report->message, sizeof(report->message), "it asked for %zu bytes at once", size);
    ::_exit(kLargeAllocation);
  }
}

}  // namespace

}  // namespace calm::fuzz

#if !defined(__SANITIZE_ADDRESS__)
// Every allocation of the program and of its libraries comes by here on its way to glibc. Eigen and MuJoCo call malloc,
// which replacing operator new would not see.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  calm::fuzz::watch_allocation(size);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  size_t bytes = 0;
  calm::fuzz::watch_allocation(__builtin_mul_overflow(count, size, &bytes) ? SIZE_MAX : bytes);
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  calm::fuzz::watch_allocation(size);
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  calm::fuzz::watch_allocation(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  calm::fuzz::watch_allocation(size);
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : ENOMEM;
}
}
#endif

namespace calm::fuzz {

namespace {

// Of the name: the same on every machine, which std::hash does not promise.
uint64_t hash_of(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

class Mutator {
 public:
  Mutator(const FuzzInput& input, uint64_t index) : input_(input), rng_(hash_of(input.name), index) {}

  std::string run() {
    bytes_ = input_.seeds[pick(input_.seeds.size())];
    const int times = 1 + (rng_.below(2) ? rng_.below(8) : 0);
    for (int i = 0; i < times; ++i) step();
    if (bytes_.size() > kMaxInputBytes) bytes_.resize(kMaxInputBytes);
    return std::move(bytes_);
  }

 private:
  size_t pick(size_t n) { return n == 0 ? 0 : static_cast<size_t>(rng_.below(static_cast<int>(n))); }
  // Short pieces more often than long ones.
  size_t length(size_t max) { return std::min(max, size_t{1} + pick(size_t{1} << rng_.below(12))); }

  void step() {
    const size_t at = pick(bytes_.size() + 1);
    const size_t rest = bytes_.size() - at;
    switch (rng_.below(11)) {
      case 0:  // one bit
        if (rest) bytes_[at] = static_cast<char>(bytes_[at] ^ (1 << rng_.below(8)));
        return;
      case 1:  // one byte
        if (rest) bytes_[at] = static_cast<char>(rng_.below(256));
        return;
      case 2:  // cut off
        bytes_.resize(at);
        return;
      case 3:  // leave out
        bytes_.erase(at, length(rest));
        return;
      case 4: {  // the same again, sometimes very often: nesting
        const std::string piece = bytes_.substr(at, length(rest));
        size_t times = rng_.below(8) ? 1 : size_t{1} << rng_.below(15);
        std::string more;
        for (; times > 0 && more.size() < kMaxInputBytes; --times) more += piece;
        bytes_.insert(at, more);
        return;
      }
      case 5: {  // a piece from elsewhere
        const std::string& other = input_.seeds[pick(input_.seeds.size())];
        const size_t from = pick(other.size() + 1);
        bytes_.replace(at, rng_.below(2) ? 0 : length(rest), other.substr(from, length(other.size() - from)));
        return;
      }
      case 6: {  // noise
        std::string noise(1 + pick(16), '\0');
        for (char& c : noise) c = static_cast<char>(rng_.below(256));
        bytes_.replace(at, std::min(rest, rng_.below(2) ? size_t{0} : noise.size()), noise);
        return;
      }
      case 7:
        return replace_binary_number(at);
      case 8:
      case 9:
        return replace_written_number(at);
      default:
        return replace_word(at);
    }
  }

  // A little-endian integer or float of 1 to 8 bytes.
  void replace_binary_number(size_t at) {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            0x7f,
                                            0xff,
                                            0x7fff,
                                            0xffff,
                                            0x10000,
                                            0x7fffffff,
                                            0x80000000,
                                            0xffffffff,
                                            0x40000000,
                                            0x7fc00000,
                                            0x7f7fffff,
                                            0x7fffffffffffffff,
                                            0x8000000000000000,
                                            0xffffffffffffffff,
                                            0x2000000000000001,
                                            0x100000000};
    uint64_t number = kNumbers[pick(std::size(kNumbers))];
    if (rng_.below(3) == 0) number = bytes_.size() + static_cast<uint64_t>(rng_.below(17)) - 8;
    const size_t size = std::min(bytes_.size() - at, size_t{1} << rng_.below(4));
    std::memcpy(bytes_.data() + at, &number, size);
  }

  void replace_written_number(size_t at) {
    static constexpr const char* kNumbers[] = {"0",
                                               "-0",
                                               "1",
                                               "-1",
                                               "0.0001",
                                               "1e-30",
                                               "1e30",
                                               "-1e308",
                                               "1e400",
                                               "nan",
                                               "-inf",
                                               "inf",
                                               "99999",
                                               "2147483647",
                                               "2147483648",
                                               "4294967296",
                                               "9223372036854775807",
                                               "-2147483649",
                                               "1e10",
                                               "0x10",
                                               "1 2",
                                               "",
                                               "1,5",
                                               "360",
                                               "100000000"};
    const size_t begin = bytes_.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    const size_t end = std::min(bytes_.size(), bytes_.find_first_not_of("0123456789.eE+-", begin));
    bytes_.replace(begin, end - begin, kNumbers[pick(std::size(kNumbers))]);
  }

  // A word by another of the input or of the format, by none, or by a long one.
  void replace_word(size_t at) {
    static constexpr const char* kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    const auto word_at = [&](size_t from, size_t& begin, size_t& end) {
      begin = std::min(bytes_.size(), bytes_.find_first_of(kLetters, from));
      end = std::min(bytes_.size(), bytes_.find_first_not_of(kLetters, begin));
    };
    size_t begin = 0, end = 0;
    word_at(at, begin, end);
    std::string word;
    if (const int kind = rng_.below(8); kind == 0) {
      word = std::string(size_t{1} << rng_.below(18), 'a');
    } else if (kind < 4 && !input_.words.empty()) {
      word = input_.words[pick(input_.words.size())];
    } else if (kind < 7) {
      size_t other_begin = 0, other_end = 0;
      word_at(pick(bytes_.size() + 1), other_begin, other_end);
      word = bytes_.substr(other_begin, other_end - other_begin);
    }
    bytes_.replace(begin, end - begin, word);
  }

  const FuzzInput& input_;
  Rng rng_;
  std::string bytes_;
};

double fuzz_seconds() {
  const char* text = std::getenv("CALM_FUZZ_SECONDS");
  const double seconds = text ? std::atof(text) : 2.0;
  return seconds > 0.0 ? seconds : 2.0;
}

void set_clock(int seconds) {
  const itimerval processor{{0, 0}, {seconds, 0}};
  ::setitimer(ITIMER_PROF, &processor, nullptr);
  // asleep or blocked counts too, but the machine may be busy with others
  const itimerval wall{{0, 0}, {seconds * 10, 0}};
  ::setitimer(ITIMER_REAL, &wall, nullptr);
}

// Reads one input under watch. True if it was accepted.
bool read_one(const FuzzInput& input, const std::string& bytes) {
  const auto end = [](ExitCode code, const char* message) {
    set_clock(0);
    std::snprintf(report->message, sizeof(report->message), "%s", message);
    ::_exit(code);
  };
  report->largest_allocation = 0;
  set_clock(input.max_seconds > 0 ? input.max_seconds : kMaxSeconds);
  bool accepted = false;
  try {
    input.read(bytes);
    accepted = true;
  } catch (const Error& e) {
    std::snprintf(report->message, sizeof(report->message), "%s", e.what());
  } catch (const std::bad_alloc&) {
    end(kLargeAllocation, "memory ran out");
  } catch (const std::exception& e) {
    end(kWrongException, (std::string("it threw something else than Error: ") + e.what()).c_str());
  }
  set_clock(0);
  return accepted;
}

[[noreturn]] void run_child(const FuzzInput& input, double seconds) {
#if defined(__SANITIZE_ADDRESS__)
  // the sanitizer reserves terabytes of addresses, so that a limit on them is none; its hooks see every allocation
  __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t size) { watch_allocation(size); },
                                            [](const volatile void*) {});
#else
  long pages = 0;
  if (FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%ld", &pages) != 1) pages = 0;
    std::fclose(statm);
  }
  const rlim_t limit = static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + kMaxAddressSpace;
  const rlimit address_space{limit, limit};
  ::setrlimit(RLIMIT_AS, &address_space);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
#endif
  for (const int signal : {SIGPROF, SIGALRM})
    ::signal(signal, [](int) {
      std::snprintf(report->message, sizeof(report->message), "reading it takes too long");
      ::_exit(kTooSlow);
    });

  // undamaged first: refusing everything would pass the rest
  for (size_t i = 0; i < input.seeds.size(); ++i) {
    report->index = i;
    if (!read_one(input, input.seeds[i])) ::_exit(kRefusedSeed);  // the message is the reader's
  }
  report->damaged = true;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (uint64_t i = 0; std::chrono::steady_clock::now() < end; ++i) {
    report->index = i;
    ++(read_one(input, damaged_input(input, i)) ? report->accepted : report->refused);
  }
#if defined(__SANITIZE_ADDRESS__)
  if (__lsan_do_recoverable_leak_check()) ::_exit(kLeak);
#endif
  ::_exit(kDone);
}

}  // namespace

std::string damaged_input(const FuzzInput& input, uint64_t index) { return Mutator(input, index).run(); }

std::string find_fault(const FuzzInput& input, double seconds) {
  if (input.seeds.empty()) return "there are no seeds";
  void* memory = ::mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return "no memory to share";
  const std::unique_ptr<Report, void (*)(Report*)> seen(new (memory) Report,
                                                        [](Report* r) { ::munmap(r, sizeof(*r)); });

  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    report = seen.get();
    run_child(input, seconds);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return "no child could be started";
  fmt::print("{}: {} damaged inputs refused, {} accepted\n", input.name, seen->refused, seen->accepted);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kDone) return seen->refused ? "" : "no damaged input was refused";

  std::string what = seen->message;
  if (WIFSIGNALED(status))
    what = fmt::format("it died of signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  if (WIFEXITED(status) && WEXITSTATUS(status) == kRefusedSeed) what = "it was refused undamaged: " + what;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kLeak) what = "it or an input before it leaked memory";
  if (what.empty()) what = fmt::format("the program left with exit code {}", WEXITSTATUS(status));
  const std::string bytes = seen->damaged ? damaged_input(input, seen->index) : input.seeds[seen->index];
  const auto path = std::filesystem::temp_directory_path() /
                    fmt::format("calm-fuzz-{}-{}{}", input.name, seen->damaged ? "" : "seed-", seen->index);
  write_file_atomic(path, bytes);
  return fmt::format("{} {}: {}; written to {}", seen->damaged ? "damaged input" : "seed", seen->index, what,
                     path.string());
}

void run_fuzz(const FuzzInput& input) { EXPECT_EQ(find_fault(input, fuzz_seconds()), ""); }

}  // namespace calm::fuzz
