#include "model/model_file.h"

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace dpa2md {
namespace {

constexpr char kMagic[8] = {'D', 'P', 'A', '2', 'M', 'D', '\r', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeader = 32;
enum Kind { kText = 1, kInt64 = 2, kFloat64 = 3, kFloat32 = 4 };

std::size_t item_size(int kind) { return kind == kText ? 1 : kind == kFloat32 ? 4 : 8; }

std::uint32_t crc32(const unsigned char* data, std::size_t size) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t c = 0xFFFFFFFFu;
  for (std::size_t i = 0; i < size; ++i) c = table[(c ^ data[i]) & 0xFF] ^ (c >> 8);
  return c ^ 0xFFFFFFFFu;
}

std::vector<unsigned char> read_bytes(const std::string& path) {
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown))
    throw Error("the model '" + path + "' is a directory: name the .dpa2 file.");
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = in ? static_cast<std::streamoff>(in.tellg()) : -1;
  if (size < 0) throw Error("cannot open the model file '" + path + "': check the name and the permissions.");
  std::vector<unsigned char> bytes(static_cast<std::size_t>(size));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!in) throw Error("cannot read the model file '" + path + "' to its end: copy it again.");
  return bytes;
}

// A cursor over bytes that refuses to step outside them.
struct Cursor {
  const std::vector<unsigned char>& bytes;
  const Records& owner;
  std::size_t at;

  std::size_t take(std::size_t n) {
    if (n > bytes.size() - at)
      owner.refuse("is damaged (a record runs past the end); copy or convert it again");
    const std::size_t start = at;
    at += n;
    return start;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, bytes.data() + take(sizeof(T)), sizeof(T));
    return value;
  }
  void align(std::size_t start) { take((8 - (at - start) % 8) % 8); }
};

std::string show(const std::vector<std::int64_t>& shape) {
  std::string s = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    s += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  }
  return s + ")";
}

}  // namespace

// Names come from the file itself: whatever is not printable ASCII is shown as '?'.
void Records::refuse(const std::string& why) const {
  std::string shown = why;
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  throw Error("the model file '" + path_ + "' " + shown + ".");
}

Records Records::read(const std::string& path) {
  Records r;
  r.path_ = path;
  r.bytes_ = read_bytes(path);
  if (r.bytes_.size() < kHeader || std::memcmp(r.bytes_.data(), kMagic, sizeof(kMagic)) != 0) {
    r.refuse("is not a .dpa2 model; convert a DeePMD-kit model with `dpa2md convert`");
  }
  Cursor in{r.bytes_, r, sizeof(kMagic)};
  const auto version = in.number<std::uint32_t>();
  const auto count = in.number<std::uint32_t>();
  const auto size = in.number<std::uint64_t>();
  const auto checksum = in.number<std::uint32_t>();
  in.number<std::uint32_t>();
  if (version != kVersion) {
    r.refuse("has format version " + std::to_string(version) + ", this program reads version " +
             std::to_string(kVersion) + "; update dpa2md or convert the original again");
  }
  if (size != r.bytes_.size() - kHeader)
    r.refuse("is truncated or has extra bytes; copy or convert it again");
  if (checksum != crc32(r.bytes_.data() + kHeader, r.bytes_.size() - kHeader)) {
    r.refuse("is damaged (its checksum is wrong); copy or convert it again");
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::size_t start = in.at;
    const auto length = in.number<std::uint16_t>();
    Record record;
    record.kind = in.number<std::uint8_t>();
    const int dims = in.number<std::uint8_t>();
    if (record.kind < kText || record.kind > kFloat32 || dims > 4) {
      r.refuse("is damaged (a record of unknown kind); copy or convert it again");
    }
    const std::uint64_t limit = r.bytes_.size();
    std::uint64_t elements = 1;
    bool zero = false;
    for (int d = 0; d < dims; ++d) {
      const auto extent = in.number<std::uint64_t>();
      zero = zero || extent == 0;
      if (extent > limit || (!zero && extent && elements > limit / extent)) {
        r.refuse("is damaged (a record larger than the file); copy or convert it again");
      }
      if (extent) elements *= extent;
      record.shape.push_back(static_cast<std::int64_t>(extent));
    }
    record.count = zero ? 0 : static_cast<std::int64_t>(elements);
    const std::size_t name_at = in.take(length);
    const std::string name(reinterpret_cast<const char*>(r.bytes_.data()) + name_at, length);
    in.align(start);
    record.offset = in.take(static_cast<std::size_t>(record.count) * item_size(record.kind));
    in.align(start);
    if (!r.records_.emplace(name, record).second) r.refuse("holds the record '" + name + "' twice");
  }
  if (in.at != r.bytes_.size()) r.refuse("has bytes after its last record; convert it again");
  return r;
}

const Records::Record& Records::find(const std::string& name, int kind) {
  const auto it = records_.find(name);
  if (it == records_.end()) refuse("lacks the record '" + name + "'; convert the original again");
  const Record& record = it->second;
  const bool is_float = record.kind == kFloat64 || record.kind == kFloat32;
  if (kind == kFloat64 ? !is_float : record.kind != kind) {
    refuse("holds the record '" + name + "' with the wrong kind; convert the original again");
  }
  used_.insert(name);
  return record;
}

std::string Records::text(const std::string& name) {
  const Record& record = find(name, kText);
  return std::string(reinterpret_cast<const char*>(bytes_.data()) + record.offset,
                     static_cast<std::size_t>(record.count));
}

std::vector<std::int64_t> Records::integers(const std::string& name, const std::vector<std::int64_t>& shape) {
  const Record& record = find(name, kInt64);
  bool ok = record.shape.size() == shape.size();
  for (std::size_t d = 0; ok && d < shape.size(); ++d) ok = shape[d] < 0 || shape[d] == record.shape[d];
  if (!ok) refuse("holds '" + name + "' with shape " + show(record.shape) + ", expected " + show(shape));
  std::vector<std::int64_t> values(static_cast<std::size_t>(record.count));
  if (!values.empty()) std::memcpy(values.data(), bytes_.data() + record.offset, values.size() * 8);
  return values;
}

std::int64_t Records::integer(const std::string& name) { return integers(name, {})[0]; }

bool Records::flag(const std::string& name) {
  const std::int64_t value = integer(name);
  if (value != 0 && value != 1)
    refuse("holds the switch '" + name + "' with a value that is neither 0 nor 1");
  return value == 1;
}

double Records::real(const std::string& name) { return tensor(name, {}).data[0]; }

Tensor Records::tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
  const Record& record = find(name, kFloat64);
  bool ok = record.shape.size() == shape.size();
  for (std::size_t d = 0; ok && d < shape.size(); ++d) ok = shape[d] < 0 || shape[d] == record.shape[d];
  if (!ok) refuse("holds '" + name + "' with shape " + show(record.shape) + ", expected " + show(shape));
  Tensor t{record.shape, std::vector<double>(static_cast<std::size_t>(record.count))};
  const unsigned char* source = bytes_.data() + record.offset;
  if (record.kind == kFloat64) {
    if (!t.data.empty()) std::memcpy(t.data.data(), source, t.data.size() * 8);
  } else {
    for (std::size_t i = 0; i < t.data.size(); ++i) {
      float value;
      std::memcpy(&value, source + 4 * i, 4);
      t.data[i] = value;
    }
  }
  for (double value : t.data) {
    if (!std::isfinite(value))
      refuse("holds a number in '" + name + "' that is not finite; the model is unusable");
  }
  return t;
}

Tensor Records::optional_tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
  return has(name) ? tensor(name, shape) : Tensor{};
}

std::map<std::string, std::string> Records::meta() const {
  std::map<std::string, std::string> out;
  for (const auto& [name, record] : records_) {
    if (name.compare(0, 5, "meta.") == 0 && record.kind == kText) {
      out[name.substr(5)] = std::string(reinterpret_cast<const char*>(bytes_.data()) + record.offset,
                                        static_cast<std::size_t>(record.count));
    }
  }
  return out;
}

void Records::refuse_unused() const {
  for (const auto& entry : records_) {
    if (entry.first.compare(0, 5, "meta.") != 0 && used_.count(entry.first) == 0) {
      refuse("holds '" + entry.first + "', which this version of dpa2md does not implement; update dpa2md");
    }
  }
}

}  // namespace dpa2md
