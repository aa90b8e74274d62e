// Reads the `.dpa2` container (docs/model-format.md): named records, checked before anything is believed.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace dpa2md {

// A dense array of numbers, row-major. Weights are held in double, whatever precision the file stores.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<double> data;

  bool empty() const { return data.empty(); }
  std::int64_t dim(int axis) const { return shape[axis]; }
  double operator()(std::int64_t i, std::int64_t j) const { return data[i * shape[1] + j]; }
};

// The records of one file. Every accessor marks its record as used; `refuse_unused` names the others, because
// an unknown record is a switch that this version would silently ignore.
class Records {
 public:
  // Reads and checks a whole file. Throws Error: not a model, damaged, or of a newer version.
  static Records read(const std::string& path);

  bool has(const std::string& name) const { return records_.count(name) > 0; }
  std::string text(const std::string& name);
  std::int64_t integer(const std::string& name);
  bool flag(const std::string& name);  // an integer that must be 0 or 1
  double real(const std::string& name);
  std::vector<std::int64_t> integers(const std::string& name, const std::vector<std::int64_t>& shape);
  // A floating-point array; -1 in `shape` accepts any extent. Refuses NaN and infinity.
  Tensor tensor(const std::string& name, const std::vector<std::int64_t>& shape);
  // tensor() for an optional record; an empty Tensor if it is absent.
  Tensor optional_tensor(const std::string& name, const std::vector<std::int64_t>& shape);

  std::map<std::string, std::string> meta() const;
  void refuse_unused() const;
  const std::string& path() const { return path_; }
  [[noreturn]] void refuse(const std::string& why) const;  // Error with the file's name in front

 private:
  struct Record {
    int kind;
    std::vector<std::int64_t> shape;
    std::size_t offset;  // of the data in bytes_
    std::int64_t count;  // elements
  };
  const Record& find(const std::string& name, int kind);

  std::string path_;
  std::vector<unsigned char> bytes_;
  std::map<std::string, Record> records_;
  std::set<std::string> used_;
};

}  // namespace dpa2md
