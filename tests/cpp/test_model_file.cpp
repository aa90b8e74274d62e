// Damaged model files end in one Error, never in a crash or a wild allocation: truncations, and random
// changes whose checksum was repaired, as a hostile writer would. Usage: test_model_file MODEL.dpa2 (or a
// directory of them)
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model/model.h"

using namespace dpa2md;

namespace {

using Bytes = std::vector<unsigned char>;
constexpr std::size_t kHeader = 32, kSizeAt = 16, kChecksumAt = 24;

Bytes read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

void repair(Bytes* file) {
  if (file->size() < kHeader) return;
  const std::uint64_t size = file->size() - kHeader;
  static const std::vector<std::uint32_t> table = [] {
    std::vector<std::uint32_t> t(256);
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int k = 0; k < 8; ++k) t[i] = (t[i] >> 1) ^ (0xEDB88320u & (0u - (t[i] & 1)));
    }
    return t;
  }();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t i = kHeader; i < file->size(); ++i) crc = table[(crc ^ (*file)[i]) & 0xFF] ^ (crc >> 8);
  crc ^= 0xFFFFFFFFu;
  std::memcpy(file->data() + kSizeAt, &size, 8);
  std::memcpy(file->data() + kChecksumAt, &crc, 4);
}

// Counts outcomes; anything but a model or an Error is a failure.
struct Outcomes {
  int models = 0, errors = 0, computed = 0;
};

// Three atoms with every type of the model there is: a file that was accepted must also be safe to use.
void compute(Engine* engine) {
  const double x[] = {0, 0, 0, 0.97, 0.1, 0, -0.2, 0.9, 0.3};
  const int last = engine->model().ntypes() - 1, type[] = {0, last, std::min(1, last)};
  NeighborList list(engine->model().rcut(), 0.0);
  list.update(x, type, {0, 3}, {Cell{{0, 0, 0, 0, 0, 0, 0, 0, 0}, {false, false, false}}});
  const Atoms atoms{3, 3, x, type, nullptr, &list.candidates()};
  const std::vector<double> fparam(engine->model().fitting.nfparam(), 0.1);
  const std::vector<double> aparam(3 * engine->model().fitting.naparam(), 0.1);
  engine->compute(atoms, true, fparam.empty() ? nullptr : fparam.data(),
                  aparam.empty() ? nullptr : aparam.data(), nullptr, nullptr);
}

// Tables are made of whatever the weights are; that takes long, so only some attempts make them.
void attempt(const Bytes& file, const std::string& scratch, Outcomes* o, bool tables = false) {
  {
    std::ofstream out(scratch, std::ios::binary);
    out.write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
  }
  try {
    Engine engine(scratch, read_options("float64", 1, "cpu", tables));
    ++o->models;
    compute(&engine);
    ++o->computed;
  } catch (const Error& error) {
    ++o->errors;
    CHECK(error.what()[0] != '\0' && std::string(error.what()).back() == '.');
  } catch (const std::exception& error) {
    std::fprintf(stderr, "not an Error: %s\n", error.what());
    CHECK(false);
  }
}

void test_truncations(const Bytes& good, const std::string& scratch, bool repaired) {
  Outcomes o;
  int count = 0;
  std::mt19937 random(1);
  for (std::size_t at = 0; at < good.size(); at += at < 600 ? 1 : 1 + random() % (good.size() / 150)) {
    Bytes bad(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(at));
    if (repaired) repair(&bad);
    attempt(bad, scratch, &o);
    ++count;
  }
  CHECK(o.errors == count);
}

// Positions of the records' heads (kind, shape, name), where a change does the most harm.
std::vector<std::size_t> record_heads(const Bytes& file) {
  std::vector<std::size_t> out;
  std::size_t at = kHeader;
  const auto number = [&](std::size_t where, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, file.data() + where, size);
    return value;
  };
  while (at < file.size()) {
    out.push_back(at);
    const std::size_t dims = file[at + 3], item = file[at + 2] == 1 ? 1 : file[at + 2] == 4 ? 4 : 8;
    std::size_t count = 1;
    for (std::size_t d = 0; d < dims; ++d) count *= number(at + 4 + 8 * d, 8);
    const std::size_t head = 4 + 8 * dims + number(at, 2);
    at += (head + 7) / 8 * 8 + (count * item + 7) / 8 * 8;
  }
  CHECK(at == file.size());
  return out;
}

void test_changes(const Bytes& good, const std::string& scratch, int rounds) {
  static const unsigned char values[] = {0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFE, 0xFF};
  const std::vector<std::size_t> heads = record_heads(good);
  std::mt19937 random(2);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  Outcomes o;
  for (int round = 0; round < rounds; ++round) {
    Bytes bad = good;
    for (std::size_t changes = 1 + below(3); changes; --changes) {
      // half of them in a record's head or the numbers right behind it, a tenth in the file's header
      std::size_t at = below(good.size());
      if (round % 2) at = heads[below(heads.size())] + below(64);
      if (round % 10 == 0) at = below(kHeader);
      bad[std::min(at, good.size() - 1)] =
          below(2) ? values[below(sizeof(values))] : static_cast<unsigned char>(random());
    }
    repair(&bad);
    attempt(bad, scratch, &o, round % 100 == 1);
  }
  CHECK(o.errors + o.computed == rounds);
  CHECK(o.errors > rounds / 10);  // else the changes hit nothing that matters
}

// Integers are the sizes that everything is allocated by: each takes wild values.
void test_wild_integers(const Bytes& good, const std::string& scratch) {
  static const std::int64_t values[] = {-1,        0,        1, 2, 3, 1000, 65536, std::int64_t{1} << 31,
                                        INT64_MAX, INT64_MIN};
  Outcomes o;
  for (std::size_t head : record_heads(good)) {
    if (good[head + 2] != 2) continue;
    const std::size_t name = good[head] + 256u * good[head + 1];
    const std::size_t data = head + (4 + 8 * good[head + 3] + name + 7) / 8 * 8;
    for (std::int64_t value : values) {
      Bytes bad = good;
      std::memcpy(bad.data() + data, &value, 8);
      repair(&bad);
      attempt(bad, scratch, &o);
    }
  }
  CHECK(o.errors > 0);
}

}  // namespace

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  for (int a = 1; a < argc; ++a) {
    if (!fs::is_directory(argv[a])) {
      paths.push_back(argv[a]);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(argv[a])) {
      if (entry.path().extension() == ".dpa2") paths.push_back(entry.path().string());
    }
  }
  if (paths.empty()) {
    std::fprintf(stderr, "no models: give .dpa2 files, or a directory of them\n");
    return 1;
  }
  const std::string scratch =
      (fs::temp_directory_path() / ("dpa2md-damaged-" + std::to_string(std::random_device()()) + ".dpa2"))
          .string();
  for (const std::string& path : paths) {
    const Bytes good = read(path);
    Outcomes whole;
    attempt(good, scratch, &whole);
    CHECK(whole.computed == 1);
    test_truncations(good, scratch, false);
    test_truncations(good, scratch, true);
    test_wild_integers(good, scratch);
    test_changes(good, scratch, 4000 / static_cast<int>(paths.size()) + 1);
    if (failed_checks()) std::fprintf(stderr, "after %s\n", path.c_str());
  }
  std::remove(scratch.c_str());
  return check_result();
}
