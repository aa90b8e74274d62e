// Coverage-guided fuzzing of the reader of model files, by hand: it needs clang with libFuzzer.
//
//   clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc \
//     tests/cpp/fuzz_model_file.cpp csrc/model/model_file.cpp csrc/model/model.cpp -o build/fuzz_model_file
//   mkdir -p build/corpus && cp *.dpa2 build/corpus   # small models: tests/support/fuzz_models.py makes some
//   build/fuzz_model_file -max_total_time=600 -rss_limit_mb=2048 -timeout=10 build/corpus
//
// Each input is a whole file, whose size and checksum are put right, so that what lies behind them is
// reached. It must become a model or an Error. Nothing is computed with it: tests/cpp/test_model_file.cpp
// does that.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/model.h"

namespace {

constexpr std::size_t kHeader = 32, kVersionAt = 8, kSizeAt = 16, kChecksumAt = 24;

std::uint32_t checksum(const unsigned char* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int k = 0; k < 8; ++k) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
  }
  return ~crc;
}

// The input as the reader expects it: only the number of records is left of its header.
std::vector<unsigned char> repaired(const unsigned char* data, std::size_t size) {
  std::vector<unsigned char> file(data, data + size);
  const std::uint64_t body = size - kHeader;
  const std::uint32_t version = 1, crc = checksum(data + kHeader, size - kHeader), nothing = 0;
  std::memcpy(file.data(), "DPA2MD\r\n", 8);
  std::memcpy(file.data() + kVersionAt, &version, 4);
  std::memcpy(file.data() + kSizeAt, &body, 8);
  std::memcpy(file.data() + kChecksumAt, &crc, 4);
  std::memcpy(file.data() + kChecksumAt + 4, &nothing, 4);
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size < kHeader) return 0;
  const std::vector<unsigned char> file = repaired(data, size);
  static const int scratch =
      memfd_create("model", 0);  // a file in memory, which the reader opens by its path
  static const std::string path = "/proc/self/fd/" + std::to_string(scratch);
  if (ftruncate(scratch, 0) != 0) std::abort();
  if (pwrite(scratch, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size())) std::abort();
  try {
    dpa2md::Model::read(path);
  } catch (const dpa2md::Error& error) {
    if (!error.what()[0] || std::string(error.what()).back() != '.') std::abort();
  }
  return 0;
}
