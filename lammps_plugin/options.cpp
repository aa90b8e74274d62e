#include "options.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <set>

#include "base/error.h"

namespace dpa2md {
namespace {

const std::set<std::string> kKeywords = {"precision",       "device",    "threads",
                                         "low_memory",      "fparam",    "fparam_from_compute",
                                         "fparam_from_fix", "aparam",    "aparam_from_compute",
                                         "out_freq",        "out_file",  "atomic",
                                         "relative",        "relative_v"};

bool is_keyword(const std::string& word) { return kKeywords.count(word) != 0; }

// Reads words one by one; complains in the name of the keyword that is being read.
class Words {
 public:
  Words(int narg, char** arg) : words_(arg, arg + narg) {}

  bool more() const { return at_ < words_.size(); }
  const std::string& peek() const { return words_[at_]; }
  std::string take() { return words_[at_++]; }

  std::string value(const std::string& keyword) {
    if (!more() || is_keyword(peek())) throw Error("keyword " + keyword + " needs a value.");
    return take();
  }
  double number(const std::string& keyword) {
    const std::string text = value(keyword);
    char* end = nullptr;
    const double x = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || *end || !std::isfinite(x))
      throw Error("keyword " + keyword + " needs a number, not \"" + text + "\".");
    return x;
  }
  int integer(const std::string& keyword, int least) {
    const double x = number(keyword);
    if (x != std::floor(x) || x < least || x > 2147483647.0)
      throw Error("keyword " + keyword + " needs a whole number of at least " + std::to_string(least) + ".");
    return static_cast<int>(x);
  }
  std::vector<double> numbers(const std::string& keyword) {
    std::vector<double> out = {number(keyword)};
    while (more() && !is_keyword(peek())) out.push_back(number(keyword));
    return out;
  }
  double level(const std::string& keyword) {
    const double x = number(keyword);
    if (x < 0) throw Error("keyword " + keyword + " needs a number that is not negative.");
    return x;
  }

 private:
  std::vector<std::string> words_;
  std::size_t at_ = 0;
};

}  // namespace

Options parse_options(int narg, char** arg) {
  Options o;
  Words words(narg, arg);
  while (words.more() && !is_keyword(words.peek())) o.models.push_back(words.take());
  if (o.models.empty()) throw Error("a model file is missing: write pair_style dpa2 model.dpa2.");
  while (words.more()) {
    const std::string keyword = words.take();
    if (keyword == "precision") {
      o.precision = words.value(keyword);
    } else if (keyword == "device") {
      o.device = words.value(keyword);
    } else if (keyword == "threads") {
      o.threads = words.integer(keyword, 1);
    } else if (keyword == "low_memory") {
      o.low_memory = true;
    } else if (keyword == "fparam") {
      o.fparam = words.numbers(keyword);
    } else if (keyword == "fparam_from_compute") {
      o.fparam_compute = words.value(keyword);
    } else if (keyword == "fparam_from_fix") {
      o.fparam_fix = words.value(keyword);
      if (words.more() && !is_keyword(words.peek())) o.fparam_fix_index = words.integer(keyword, 1);
    } else if (keyword == "aparam") {
      o.aparam = words.numbers(keyword);
    } else if (keyword == "aparam_from_compute") {
      o.aparam_compute = words.value(keyword);
    } else if (keyword == "out_freq") {
      o.out_freq = words.integer(keyword, 0);
    } else if (keyword == "out_file") {
      o.out_file = words.value(keyword);
    } else if (keyword == "atomic") {
      o.atomic = true;
    } else if (keyword == "relative") {
      o.relative = words.level(keyword);
    } else if (keyword == "relative_v") {
      o.relative_v = words.level(keyword);
    } else {
      throw Error("keyword \"" + keyword + "\" is unknown.");
    }
  }
  if (!o.fparam.empty() + !o.fparam_compute.empty() + !o.fparam_fix.empty() > 1)
    throw Error("keywords fparam, fparam_from_compute and fparam_from_fix exclude each other.");
  if (!o.aparam.empty() && !o.aparam_compute.empty())
    throw Error("keywords aparam and aparam_from_compute exclude each other.");
  return o;
}

}  // namespace dpa2md
