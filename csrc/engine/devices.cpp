#include "engine/devices.h"

#include "base/error.h"

namespace dpa2md {
namespace {

// How a kind of GPU is asked about its members.
struct Gpus {
  int (*count)();
  std::string (*identity)(int);
};

Gpus gpus_of([[maybe_unused]] const std::string& kind) {
#ifdef DPA2MD_CUDA_EMULATION
  if (kind == "cuda-emulation") return {count_emulated_gpus, emulated_gpu_identity};
#endif
#ifdef DPA2MD_CUDA
  return {count_cuda_gpus, cuda_gpu_identity};
#else
  throw Error("this dpa2md was built without CUDA: use device \"cpu\".");
#endif
}

bool is_gpu_kind(const std::string& kind) {
#ifdef DPA2MD_CUDA_EMULATION
  if (kind == "cuda-emulation") return true;
#endif
  return kind == "cuda";
}

}  // namespace

std::string cuda_build() {
#ifdef DPA2MD_CUDA
  return DPA2MD_CUDA_BUILD;
#else
  return "";
#endif
}

DeviceName parse_device(const std::string& name) {
  if (name == "cpu") return {name};
  const std::size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  const std::string digits = colon == std::string::npos ? "0" : name.substr(colon + 1);
  const bool number =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == std::string::npos;
  if (!number || !is_gpu_kind(kind))
    throw Error("the device \"" + name + "\" is unknown: use \"cpu\", \"cuda\" or \"cuda:1\".");
  gpus_of(kind);  // complains where the build lacks them
  return {kind, colon == std::string::npos ? -1 : std::stoi(digits)};
}

std::string device_of_process(const std::string& name, int process) {
  const DeviceName device = parse_device(name);
  if (device.kind == "cpu" || device.number >= 0) return name;
  return device.kind + ":" + std::to_string(process % gpus_of(device.kind).count());
}

std::string gpu_identity(const std::string& name) {
  const DeviceName device = parse_device(name);
  if (device.kind == "cpu") return "";
  return gpus_of(device.kind).identity(device.number < 0 ? 0 : device.number);
}

void check_gpu_number(int number, int count) {
  if (number < count) return;
  throw Error(
      "there is no GPU " + std::to_string(number) + ": this process sees " +
      (count == 1 ? "one, number 0" : std::to_string(count) + ", numbers 0 to " + std::to_string(count - 1)) +
      "; check the number and CUDA_VISIBLE_DEVICES.");
}

}  // namespace dpa2md
