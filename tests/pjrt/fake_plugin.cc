// A plugin that has only the head of a function table.
#include <cstddef>

namespace {

struct Head {
  size_t struct_size;
  void* extensions;
  size_t version_size;
  void* version_extensions;
  int major_version;
  int minor_version;
  void* functions[256];  // all null
};

#if defined(FAKE_old_minor)
constexpr Head kHead = {sizeof(Head), nullptr, 24, nullptr, 0, 40, {}};
#elif defined(FAKE_wrong_major)
constexpr Head kHead = {sizeof(Head), nullptr, 24, nullptr, 7, 3, {}};
#elif defined(FAKE_short_table)
constexpr Head kHead = {200, nullptr, 24, nullptr, 0, 115, {}};
#else
constexpr Head kHead = {8, nullptr, 24, nullptr, 0, 115, {}};
#endif

}  // namespace

#if defined(FAKE_no_symbol)
extern "C" const void* AnotherFunction() { return &kHead; }
#else
extern "C" const void* GetPjrtApi() { return &kHead; }
#endif
